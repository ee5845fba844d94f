-- Apps' answers on their way to callers: their heads, and that none outlasts its caller's credential.

local calls = require "modelyard.calls"
local headers = require "modelyard.headers"
local problems = require "modelyard.problems"
local replace = require "modelyard.refusing".replace
local trust = require "modelyard.trust"

local _M = {}

local LOWEST, HIGHEST = 200, 599
local DIGITS = [[\A[0-9]+\z]]
local STEPS = { "queue", "create", "boot", "ready" }

-- What the start took that the call waited for (https://www.w3.org/TR/server-timing/).
local function timing(call)
  local told = {}
  for _, name in ipairs(STEPS) do
    if call.timings[name] then
      told[#told + 1] = string.format("%s;dur=%.1f", name, call.timings[name] * 1000)
    end
  end
  told[#told + 1] = string.format("app;dur=%.1f", (ngx.now() - call.since) * 1000)
  return table.concat(told, ", ")
end

local function is_good(call)
  return not call.ground or (trust.look() and trust.holds(call.ground))
end

-- The header filter of apps' answers.
function _M.filter_head()
  local call = calls.current()
  if not call or call.is_refused then
    return
  end
  local length, coding = ngx.var.upstream_http_content_length, ngx.var.upstream_http_transfer_encoding
  if not length and not coding and ngx.req.http_version() < 1 then
    return ngx.exit(ngx.ERROR) -- what the app sent is not HTTP, and would be passed on without a head
  end
  local status = ngx.status
  if status < LOWEST or status > HIGHEST then
    return replace(problems.bad_answer("it has the status " .. status))
  end
  if (length and (coding or not ngx.re.find(length, DIGITS, "jo"))) or (coding and coding:lower() ~= "chunked") then
    return replace(problems.bad_answer("the length of its body is given twice, or not at all"))
  end
  if not is_good(call) then
    return replace(problems.credential_ended())
  end
  local why = headers.to_caller(call)
  if why then
    return replace(problems.bad_answer(why))
  end
  local header = ngx.header
  header["X-Request-Id"] = call.request_id
  if call.policy then
    header["RateLimit-Policy"], header["RateLimit"] = call.policy, call.allowance
  end
  if call.timings then
    header["Server-Timing"] = timing(call)
  end
end

-- The body filter of apps' answers: what outlasts its caller's credential ends, and never looks whole. The end of an answer that was
-- cut never comes by here.
function _M.filter_body()
  local call = calls.current()
  if not call then
    return
  end
  local replacement = call.replacement
  if replacement then
    ngx.arg[1] = not call.was_replaced and replacement or nil
    ngx.arg[2] = true
    call.was_replaced = true
    return
  end
  if call.ground and not call.is_refused and ngx.now() - call.checked >= trust.rules.ask_again_s then
    call.checked = ngx.now()
    if not is_good(call) then
      return ngx.ERROR
    end
  end
  if ngx.arg[2] then
    call.is_whole = true
  end
end

return _M
