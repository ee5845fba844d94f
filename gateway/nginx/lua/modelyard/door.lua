-- The front door: each phase of a request, in order. A mistake in here ends the request, and lets nothing pass.

local admission = require "modelyard.admission"
local apps_host = require "modelyard.apps_host"
local balancer = require "ngx.balancer"
local calls = require "modelyard.calls"
local counts = require "modelyard.counts"
local credentials = require "modelyard.credentials"
local headers = require "modelyard.headers"
local heads = require "modelyard.heads"
local limits = require "modelyard.limits"
local measures = require "modelyard.measures"
local origins = require "modelyard.origins"
local paths = require "modelyard.paths"
local problems = require "modelyard.problems"
local reaching = require "modelyard.reaching"
local refuse = require "modelyard.refusing".refuse
local routes = require "modelyard.routes"
local runner = require "modelyard.runner"
local services = require "modelyard.services"
local traces = require "modelyard.traces"
local trust = require "modelyard.trust"

local _M = {}

local SMALL_BYTES = 65536 -- bodies up to this are taken whole before the app gets them, as `client_body_buffer_size` has it
local COLLECTED_BYTES = 1048576
local BUCKETS = { 2, 4, 8, 16, 32, 64, 100, 128, 256, 512, 1024 }
local MIB = 1048576
local CONNECT_S, SEND_S = 5, 60
local BRIEF_S = 5
local OWN_PATHS = { ["/health"] = true, ["/livez"] = true, ["/openapi.json"] = true }

-- To whom a call is known: its principal, nil where it has none, or the error.
local function identify(call)
  local problem = limits.before(call)
  if problem then
    return nil, problem
  end
  local known
  if call.credential ~= "" then
    known, problem = credentials.by_field(call.credential)
  end
  if problem then
    return nil, problem
  end
  call.policy, call.allowance, problem = limits.count(call, known and known.principal)
  if not problem and call.credential ~= "" and not known then
    problem = problems.bad_credential()
  end
  return known, problem
end

local function cross_site(call)
  local fields = call.fields
  if call.is_socket then
    return (origins.is_foreign(fields) or (fields.origin and call.credential == "")) and problems.cross_site()
  end
  return not origins.SAFE[call.method] and origins.is_foreign(fields) and problems.cross_site()
end

local function bucket(limit)
  for _, size in ipairs(BUCKETS) do
    if limit <= size * MIB then
      return "@streamed_" .. size
    end
  end
  return "@streamed_" .. BUCKETS[#BUCKETS]
end

-- Where the body is carried: nil for here.
local function lane(call)
  local length, limit = call.fields["content-length"], call.route.max_body_bytes
  if call.fields["transfer-encoding"] then
    return limit <= COLLECTED_BYTES and "@collected" or bucket(limit)
  end
  return length and tonumber(length) > SMALL_BYTES and bucket(math.huge) or nil
end

local function upstream(call)
  if call.route.keep_alive_s < BRIEF_S then
    ngx.var.modelyard_brief = "_brief"
  end
  ngx.var.modelyard_target = call.path .. call.query
end

local function carry(call)
  local length = tonumber(call.fields["content-length"] or "0")
  if length > call.route.max_body_bytes then
    return refuse(problems.body_too_large(call.route.max_body_bytes))
  end
  if call.is_socket then
    return ngx.exec("@websocket")
  end
  local elsewhere = lane(call)
  local problem = (elsewhere and reaching.reach_surely or reaching.reach)(call)
  if problem then
    return refuse(problem)
  end
  counts.reached(call.route.model_id)
  headers.to_app(call)
  upstream(call)
  if elsewhere then
    return ngx.exec(elsewhere)
  end
end

-- Lets a call in, or refuses it; `identify_for` finds out who calls where that depends on the model.
local function let_in(call, identify_for)
  if call.fields["service-worker"] then
    return refuse(problems.new("forbidden", "service_worker_refused", "A model's script may not become a service worker.", "Register none."))
  end
  if not routes.is_told() then
    return refuse(problems.starting())
  end
  counts.enter(call.key) -- before the route is read: a freeze that follows sees this call
  call.is_counted = true
  local route, problem = reaching.find_route(call)
  local known = call.known
  if not problem and identify_for then
    known, problem = identify_for(call, route and route.model_id or "")
  end
  if problem then
    return refuse(problem)
  end
  call.principal, call.ground = known and known.principal, known and known.ground
  local owner, name = call.owner, call.name
  if route then
    owner, name = route.owner, route.name
  end
  local may_know
  problem, may_know = admission.refusal(call.principal, owner, name, route)
  if problem then
    return refuse(may_know and runner.explain(owner, name) or problem)
  end
  call.route = route
  return carry(call)
end

local function below_prefix(call)
  local known, problem = identify(call)
  problem = problem or cross_site(call)
  if problem then
    return refuse(problem)
  end
  local told = paths.read(call.raw_path)
  if told.is_refused then
    return refuse(problems.path_refused())
  end
  call.known = known
  call.owner, call.name, call.prefix, call.path = told.owner, told.name, told.prefix, told.path
  if not call.owner then
    return refuse(problems.not_found())
  end
  call.key = routes.by_name(call.owner, call.name)
  return let_in(call)
end

local function to_service(call)
  if OWN_PATHS[ngx.var.uri] then
    return ngx.exec("@own")
  end
  if call.is_socket then
    return refuse(problems.not_found())
  end
  local role = services.owner_of(ngx.var.uri)
  local path = services.next_of(role)
  if not path then
    return refuse(problems.service_down(role))
  end
  ngx.var.modelyard_role, ngx.var.modelyard_peer = role, "unix:" .. path
  local fields = call.fields
  ngx.req.set_header("X-Modelyard-Caller", ngx.var.remote_addr)
  ngx.req.set_header("X-Modelyard-Scheme", call.scheme)
  ngx.req.set_header("X-Request-Id", call.request_id)
  ngx.req.set_header("traceparent", call.traceparent)
  if fields.tracestate and not traces.parse(fields.traceparent) then
    ngx.req.clear_header("tracestate")
  end
  return ngx.exec("@service")
end

-- The access phase.
function _M.access()
  local fields, is_plain, held = heads.read(headers.PASSES)
  local call = calls.open(fields, held)
  if not (is_plain or heads.is_plain_as_shown()) then
    return refuse(problems.new("malformed", "malformed", "The request cannot be read.", "See /openapi.json."))
  end
  if not trust.look() then
    return refuse(problems.starting())
  end
  local problem = origins.doubled(fields)
  if problem then
    return refuse(problem)
  end
  local name = origins.host_name(fields.host)
  if name:sub(-#trust.below_apps) == trust.below_apps then
    return apps_host.pass(call, name:sub(1, -#trust.below_apps - 1), let_in)
  end
  if not trust.hosts[name] then
    return refuse(problems.new("misdirected", "host_refused", "This server does not answer for that host name.",
      "Use localhost, or name the host in the setting `hosts`."))
  end
  if call.is_of_model then
    return below_prefix(call)
  end
  return to_service(call)
end

-- The access phase of a body in chunks that must be seen whole: its limit is smaller than any that the server knows.
function _M.collect()
  local call = calls.current()
  ngx.req.read_body()
  local text, path = ngx.req.get_body_data(), ngx.req.get_body_file()
  local size = text and #text or 0
  if path then
    local file = assert(io.open(path, "rb"))
    size = file:seek("end")
    file:close()
  end
  if size > call.route.max_body_bytes then
    return refuse(problems.body_too_large(call.route.max_body_bytes))
  end
end

-- The balancer phase: the peer that was chosen, and its model's time limit.
function _M.balance()
  local call = calls.current()
  if call and call.peer then
    assert(balancer.set_current_peer(call.peer))
    assert(balancer.set_timeouts(CONNECT_S, math.max(SEND_S, call.route.timeout_s), call.route.timeout_s))
  else
    assert(balancer.set_current_peer(ngx.var.modelyard_peer))
  end
end

local function last_of(name)
  return string.match(ngx.var[name] or "", "([^, :]*)%s*$")
end

-- Answers where an app or a service gave none; an instance that is not there is woken once.
function _M.after()
  local call, status = calls.current(), ngx.status
  if not call or not call.route then
    local role = ngx.var.modelyard_role
    return refuse(status == 504 and problems.new("too_slow", "service_too_slow", "The role " .. role .. " was silent for too long.",
      "Call again; see the log of its processes.") or problems.new("bad_answer", "service_gone",
      "The process of the role " .. role .. " ended before it answered.", "Send it again, with the same Idempotency-Key."))
  end
  local is_there = last_of("upstream_connect_time") ~= "-"
  if not is_there and not call.woken and not lane(call) then
    local problem = reaching.wake(call)
    if problem then
      return refuse(problem)
    end
    headers.to_app(call)
    upstream(call)
    return ngx.exec("@again")
  end
  if is_there and status == 504 then
    return refuse(problems.too_slow(call.route.timeout_s))
  end
  local received = tonumber(last_of("upstream_bytes_received"))
  return refuse(received and received > 0 and problems.bad_answer("it cannot be read") or problems.instance_gone())
end

-- Answers for what the server itself refused.
function _M.failed()
  local call, status = calls.current(), ngx.status
  if status == 413 and call and call.route then
    return refuse(problems.body_too_large(call.route.max_body_bytes))
  end
  return refuse(require("modelyard.refusing").of_status(status))
end

-- The log phase, of every request.
function _M.log()
  local call = calls.close()
  if call then
    measures.ended(call)
  end
end

return _M
