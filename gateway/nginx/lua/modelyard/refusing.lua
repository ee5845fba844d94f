-- Answers with a problem document, in whatever phase a call is.

local calls = require "modelyard.calls"
local paths = require "modelyard.paths"
local problems = require "modelyard.problems"

local _M = {}

local KINDS = { [404] = "not_found", [405] = "wrong_method", [408] = "malformed", [413] = "too_large", [421] = "misdirected" }

local function write(problem, call)
  problems.head(problem)
  local request_id = call and call.request_id or ngx.var.request_id
  local header = ngx.header
  header["X-Request-Id"] = request_id
  if call and call.policy then
    header["RateLimit-Policy"], header["RateLimit"] = call.policy, call.allowance
  end
  local text = problems.encode(problem, call and call.raw_path or ngx.var.uri, request_id)
  header["Content-Length"] = #text
  return text
end

local function answer(problem, call)
  ngx.req.clear_header("Expect") -- else the body would be asked for
  local text = write(problem, call)
  if ngx.req.get_method() ~= "HEAD" then
    ngx.print(text)
  else
    ngx.send_headers()
  end
  return ngx.exit(ngx.HTTP_OK)
end

-- Ends the request with the error.
function _M.refuse(problem)
  local call = calls.current()
  if call then
    call.refusal = problem.kind
  end
  if call and call.instead and call.instead(call, problem) then
    return
  end
  if not call then
    return answer(problem)
  end
  call.is_refused = true
  if problems.closes(problem) then
    call.problem = problem
    return ngx.exec("@last") -- the server alone ends connections, and does so there
  end
  return answer(problem, call)
end

-- Answers with the error that ends the connection too.
function _M.refuse_at_last()
  local call = calls.current()
  return answer(call.problem, call)
end

-- Puts the error in the place of an app's answer; for the header filter.
function _M.replace(problem)
  local call = calls.current()
  local found = ngx.resp.get_headers(0)
  for name in pairs(found) do
    if name ~= "connection" and name ~= "transfer-encoding" then
      ngx.header[name] = nil
    end
  end
  call.is_refused, call.refusal = true, problem.kind
  call.replacement = write(problem, call)
end

-- The error of a request that the server itself refused.
function _M.of_status(status)
  local target = ngx.var.request_uri or ""
  if status == 404 then
    return problems.not_found()
  elseif status == 413 then
    return problems.new("too_large", "body_too_large", "The body is too large.", "Send less at once.")
  elseif status == 429 then
    return problems.new("limited", "too_many_connections", "Your address has too many connections open.",
      "Close some, or let calls share them; MODELYARD_GATEWAY__CONNECTIONS holds the number.", { retry_after_s = 1 })
  elseif status == 405 then
    return problems.new("wrong_method", "method_not_allowed", "This cannot be done here.", "See /openapi.json.")
  elseif status >= 500 and status ~= 501 and status ~= 505 then
    return problems.new("internal", "internal", "Something went wrong here.", "Look for the request id in the server's log.")
  elseif target ~= "" and paths.is_refused((paths.split(target))) then
    return problems.path_refused()
  elseif target == "" and (ngx.var.request_method or "") ~= "" then
    return problems.path_refused() -- the server read the method, and could not read the path
  end
  return problems.new(KINDS[status] or "malformed", "malformed", "The request cannot be read.", "See /openapi.json.")
end

return _M
