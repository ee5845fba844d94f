-- WebSockets (RFC 6455): frames both ways between a caller and an app, each at the pace of the slower side, for as long as both
-- stay and the caller may call. What is inside a frame is passed on as it is; its head is read, so that sizes count and an end
-- is told between two frames.

local admission = require "modelyard.admission"
local calls = require "modelyard.calls"
local counts = require "modelyard.counts"
local frames = require "modelyard.frames"
local headers = require "modelyard.headers"
local problems = require "modelyard.problems"
local reaching = require "modelyard.reaching"
local refuse = require "modelyard.refusing".refuse
local routes = require "modelyard.routes"
local semaphore = require "ngx.semaphore"
local trust = require "modelyard.trust"

local _M = {}

local GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
local CLOSE = frames.CLOSE
local NO_CODE = frames.NO_CODE
local LEFT, POLICY, TOO_BIG, BROKEN, RESTART = 1001, 1008, 1009, 1011, 1012
local PIECE_BYTES = 65536
local CLOSE_MS = 5000
local CONNECT_MS = 5000
local TURN_S, LONG_S = 0.01, 3600
local HANG_UP = 444
local FOREVER_MS = 2147483647
local MOST_HEAD_LINES = 66
local MOST_BODY_BYTES = 1048576
local WRITTEN_ANEW = { date = true, server = true, connection = true, upgrade = true, ["content-length"] = true, ["transfer-encoding"] = true }

local function end_of(by, code, reason)
  return { by = by, code = code, reason = reason or "" }
end

-- Passes frames on until somebody ends it. `who` is the side that sends them; `to.lock` is held over each frame, so that an end
-- that the door tells stands between two.
local function pump(who, from, to, most_bytes)
  local gone = who == "app" and end_of("app", BROKEN, "the model's instance ended") or end_of("caller", LEFT)
  local so_far = 0
  while true do
    local head = frames.read_head(from)
    if not head then
      return gone
    end
    if head.opcode == CLOSE then
      local body = head.size > 0 and head.size <= 125 and from:receive(head.size) or ""
      return end_of(who, frames.told_by(body, head.mask))
    end
    if head.opcode < CLOSE then
      so_far = so_far + head.size
      if so_far > most_bytes then
        return end_of("door", TOO_BIG, "more than " .. most_bytes .. " bytes in one message")
      end
      so_far = head.is_final and 0 or so_far
    end
    to.is_within = not to.is_ended
    local sent = to.is_ended or to.sock:send(head.text)
    local left = head.size
    while sent and left > 0 do
      local piece = from:receive(math.min(left, PIECE_BYTES))
      if not piece then
        return gone
      end
      left = left - #piece
      sent = to.is_ended or to.sock:send(piece)
    end
    to.is_within = false
    if not sent then
      return who == "app" and end_of("caller", LEFT) or end_of("app", BROKEN, "the model took no message within its time limit")
    end
  end
end

-- Reads what is left until the app hangs up too: who closes a connection with something unread takes back what was told last.
local function read_off(app, reading)
  local until_s = ngx.now() + CLOSE_MS / 1000
  while coroutine.status(reading) == "running" and ngx.now() < until_s do
    ngx.sleep(TURN_S)
  end
  while ngx.now() < until_s and app.sock:receiveany(PIECE_BYTES) do end
end

-- Waits until the caller may not call any more, the instance has lost its route, or this process ends.
local function watch(call)
  while true do
    ngx.sleep(trust.rules.ask_again_s)
    if ngx.worker.exiting() then
      return end_of("door", RESTART)
    end
    local route = routes.find(call.key)
    if not route or route.instance ~= call.instance or route.start ~= call.route.start then
      -- A route that closes, to see whether anybody calls, still leads here, and comes back.
      return end_of("door", RESTART, "the model's instance changes")
    end
    local problem = trust.look() and call.ground and not trust.holds(call.ground) and problems.credential_ended()
      or admission.refusal(call.principal, route.owner, route.name, route)
    if problem then
      return end_of("door", POLICY, problem.code)
    end
  end
end

local function receive_head(sock)
  local lines = {}
  while #lines <= MOST_HEAD_LINES do
    local line, why = sock:receive("*l")
    if not line then
      return nil, why
    end
    if line == "" then
      return lines
    end
    lines[#lines + 1] = line
  end
  return nil
end

local function handshake(call)
  local fields = ngx.req.get_headers(0)
  local var = ngx.var
  local lines = {
    "GET " .. call.path .. call.query .. " HTTP/1.1", "Host: " .. call.host, "Connection: Upgrade", "Upgrade: websocket",
    "X-Request-Id: " .. call.request_id, "X-Modelyard-User: " .. var.modelyard_user, "X-Modelyard-Version: " .. var.modelyard_version,
    "X-Forwarded-For: " .. var.remote_addr, "X-Forwarded-Proto: " .. call.scheme, "X-Forwarded-Host: " .. call.host,
    "traceparent: " .. call.traceparent,
  }
  if call.prefix ~= "" then
    lines[#lines + 1] = "X-Forwarded-Prefix: " .. call.prefix
  elseif var.modelyard_cookie ~= "" then
    lines[#lines + 1] = "Cookie: " .. var.modelyard_cookie
  end
  for name, value in pairs(fields) do
    if not headers.WRITTEN[name] and name ~= "sec-websocket-extensions" then
      for _, each in ipairs(type(value) == "table" and value or { value }) do
        lines[#lines + 1] = name .. ": " .. each
      end
    end
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

local function fields_of(lines)
  local found = {}
  for n = 2, #lines do
    local name, value = lines[n]:match("^([^%s:]+):[ \t]*(.-)[ \t]*$")
    if not name then
      return nil
    end
    found[#found + 1] = { name:lower(), value }
  end
  return found
end

local function value_of(fields, name)
  for _, field in ipairs(fields) do
    if field[1] == name then
      return field[2]
    end
  end
end

-- Opens it towards the app: the connection, and the lines of its answer; nil and the error.
local function open(call)
  local problem = reaching.reach_surely(call)
  if problem then
    return nil, problem
  end
  counts.reached(call.route.model_id)
  headers.to_app(call)
  local sock = ngx.socket.tcp()
  sock:settimeouts(CONNECT_MS, call.route.timeout_s * 1000, call.route.timeout_s * 1000)
  if not sock:connect(call.peer) or not sock:send(handshake(call)) then
    return nil, problems.instance_gone()
  end
  local lines, why = receive_head(sock)
  if not lines then
    return nil, why == "timeout" and problems.too_slow(call.route.timeout_s) or problems.bad_answer("it did not open the WebSocket")
  end
  return sock, lines
end

-- Passes on what an app that wants no WebSocket answers instead.
local function pass_on(call, sock, status, fields)
  ngx.status = status
  local header, told = ngx.header, {}
  for _, field in ipairs(fields) do
    if not WRITTEN_ANEW[field[1]] then
      told[field[1]] = told[field[1]] or {}
      table.insert(told[field[1]], field[2])
    end
  end
  for name, values in pairs(told) do
    header[name] = #values > 1 and values or values[1]
  end
  local why = headers.to_caller(call)
  if why then
    return refuse(problems.bad_answer(why))
  end
  header["X-Request-Id"] = call.request_id
  local length = tonumber(value_of(fields, "content-length"))
  local body = length and length <= MOST_BODY_BYTES and sock:receive(length) or ""
  header["Content-Length"] = #body
  ngx.print(body)
  return ngx.exit(ngx.HTTP_OK)
end

local function is_accepted(call, fields)
  local key = call.fields["sec-websocket-key"]
  return type(key) == "string" and value_of(fields, "sec-websocket-accept") == ngx.encode_base64(ngx.sha1_bin(key .. GUID))
    and (value_of(fields, "upgrade") or ""):lower() == "websocket" and not value_of(fields, "sec-websocket-extensions")
end

local function accept(call, caller, fields)
  local lines = { "HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: websocket", "X-Request-Id: " .. call.request_id }
  for _, field in ipairs(headers.of_handshake(call, fields)) do
    lines[#lines + 1] = field[1] .. ": " .. field[2]
  end
  return caller:send(table.concat(lines, "\r\n") .. "\r\n\r\n")
end

local function tellable(code)
  local known = (code >= 1000 and code <= 1003) or (code >= 1007 and code <= 1014) or (code >= 3000 and code <= 4999)
  return known and code or (code == NO_CODE and NO_CODE or BROKEN)
end

-- Tells both sides, and waits a while for the app to end it too; what comes meanwhile is read, and goes nowhere.
local function finish(ended, caller, app, reading)
  local code = tellable(ended.code)
  for side, is_masked in pairs({ [caller] = false, [app] = true }) do
    side.is_ended = true
    -- In the midst of a frame nothing can be told: it is broken off.
    if not side.is_within then
      side.sock:settimeouts(CLOSE_MS, CLOSE_MS, CLOSE_MS)
      side.sock:send(frames.close(code, ended.reason, is_masked))
    end
  end
  if ended.by ~= "app" and not app.is_within then
    read_off(app, reading)
  end
  app.sock:close()
end

-- Carries one WebSocket to its end; it counts as in flight for as long.
function _M.relay()
  local call = calls.current()
  local sock, lines = open(call)
  if not sock then
    return refuse(lines)
  end
  local status = tonumber(lines[1]:match("^HTTP/1%.[01] (%d%d%d)"))
  local fields = fields_of(lines)
  if not status or not fields or (status == 101 and not is_accepted(call, fields)) or status < 101 or status > 599 then
    return refuse(problems.bad_answer("it did not open the WebSocket"))
  end
  if status ~= 101 then
    return pass_on(call, sock, status, fields)
  end
  -- A caller who leaves ends it as a side, and not as a request that is dropped: the app is to be told.
  call.is_relayed = true
  if not call.woken then
    ngx.on_abort(function() end)
  end
  local caller = assert(ngx.req.socket(true))
  local most_bytes = math.min(trust.rules.message_bytes, call.route.max_body_bytes)
  caller:settimeouts(CONNECT_MS, FOREVER_MS, FOREVER_MS)
  sock:settimeouts(CONNECT_MS, call.route.timeout_s * 1000, FOREVER_MS)
  if not accept(call, caller, fields) then
    return sock:close()
  end
  local to_caller, to_app = { sock = caller }, { sock = sock }
  -- Threads are not waited for: whoever did that for several would be woken by the others for ever after.
  local ended, bell = nil, semaphore.new()
  local function begin(side, ...)
    local words = { ... }
    return ngx.thread.spawn(function()
      local told = side(unpack(words))
      ended = ended or told
      bell:post(1)
    end)
  end
  local reading = begin(pump, "app", sock, to_caller, most_bytes)
  begin(pump, "caller", caller, to_app, most_bytes)
  begin(watch, call)
  while not ended do
    bell:wait(LONG_S)
  end
  finish(ended, to_caller, to_app, reading)
  return ngx.exit(HANG_UP)
end

return _M
