-- Header rules in both directions (`gateway/headers.py`): what of a call reaches an app, and what of its answer the caller.

local cookies = require "modelyard.cookies"
local locations = require "modelyard.locations"

local _M = {}

local MOST_FIELDS = 64
local MOST_REMEMBERED = 1000

local function set(text)
  local found = {}
  for name in text:gmatch("%S+") do
    found[name] = true
  end
  return found
end

local function begins(name, starts)
  for _, start in ipairs(starts) do
    if name:sub(1, #start) == start then
      return true
    end
  end
  return false
end

-- What frames the body, and who waits to be asked for it, the server sees to itself; the others `to_app.conf` writes, or leaves out.
local WRITTEN = set([[
  host content-length transfer-encoding expect connection keep-alive te upgrade cookie authorization traceparent x-request-id
  x-modelyard-user x-modelyard-version x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-prefix]])
_M.WRITTEN = WRITTEN
local NOT_TO_APP = set([[
  connection keep-alive proxy-connection te trailer upgrade cookie authorization forwarded traceparent http2-settings
  client-ip cf-connecting-ip fastly-client-ip remote-user true-client-ip x-client-ip x-cluster-client-ip x-original-host x-original-url
  x-real-ip x-remote-user x-rewrite-url]])
local NOT_TO_APP_BEGIN = { "proxy-", "x-forwarded-", "x-modelyard-" }
local NOT_TO_CALLER = set([[
  keep-alive proxy-connection te trailer upgrade accept-ch alt-svc clear-site-data critical-ch nel public-key-pins report-to
  reporting-endpoints service-worker-allowed set-cookie2 set-login strict-transport-security x-content-type-options x-request-id
  x-sendfile]])
local NOT_TO_CALLER_BEGIN = { "access-control-", "proxy-", "ratelimit", "x-accel-", "x-modelyard-" }
-- Below `/m/` an app answers on the origin of the console, and may set nothing that holds for that origin either.
local NOT_ON_CONSOLE = set([[
  content-security-policy content-security-policy-report-only origin-agent-cluster refresh set-cookie speculation-rules
  use-as-dictionary www-authenticate]])
local POINTERS = set "location content-location"
local OF_HANDSHAKE = set "connection upgrade date server content-length transfer-encoding sec-websocket-extensions"
local OWN = set "connection transfer-encoding"
local NAMES_NONE = { ["keep-alive"] = true, close = true } -- what nearly all that have the field say in it
local LENGTH = { ["content-length"] = true, ["keep-alive"] = true, close = true }

-- What is decided of each name, as a table; of so many names it is remembered, as callers and apps may make up any number of them.
local function remembered(decide)
  local left = MOST_REMEMBERED
  return setmetatable({}, { __index = function(known, name)
    local told = decide(name)
    if left > 0 then
      left = left - 1
      rawset(known, name, told)
    end
    return told
  end })
end

-- Of the names of a request's fields: whether `to_app` leaves them alone, where no field names them.
_M.PASSES = remembered(function(name)
  local plain = name:gsub("_", "-")
  return WRITTEN[name] or not (NOT_TO_APP[plain] or begins(plain, NOT_TO_APP_BEGIN))
end)
local reaches_caller = remembered(function(name)
  return not NOT_TO_CALLER[name] and not begins(name, NOT_TO_CALLER_BEGIN)
end)

-- The names in a `Connection` field, in lower case, nil for none; the length of the body is never one of them.
local function named_in(connection)
  if not connection or NAMES_NONE[connection] then
    return nil
  end
  local found = {}
  for _, value in ipairs(type(connection) == "table" and connection or { connection }) do
    for name in value:gmatch("[^,%s]+") do
      name = name:lower()
      found[name] = not LENGTH[name] or nil
    end
  end
  return found
end

-- Makes the call's header fields those that the app gets, but for those that `to_app.conf` writes.
function _M.to_app(call)
  local fields, held = call.fields, call.held
  local named = named_in(fields.connection)
  if held then -- most calls have none: no loop is run for them, at which LuaJIT would end a line that it compiles
    for _, name in ipairs(held) do
      ngx.req.clear_header(name)
    end
  end
  if named then
    for name in pairs(fields) do
      if named[name] and not WRITTEN[name] then
        ngx.req.clear_header(name)
      end
    end
  end
  local var = ngx.var
  var.modelyard_request = call.request_id
  if call.principal then
    var.modelyard_user = call.principal.username
  end
  if call.prefix ~= "" then
    var.modelyard_prefix = call.prefix
  elseif fields.cookie then
    var.modelyard_cookie = cookies.to_app(fields.cookie)
  end
  var.modelyard_version = call.route.version
  var.modelyard_trace = call.traceparent
end

local function on_own_host(header, found)
  if found["set-cookie"] then
    local kept = {}
    for _, value in ipairs(type(found["set-cookie"]) == "table" and found["set-cookie"] or { found["set-cookie"] }) do
      kept[#kept + 1] = cookies.to_caller(value)
    end
    header["Set-Cookie"] = kept
  end
  if not found["cross-origin-opener-policy"] then
    header["Cross-Origin-Opener-Policy"] = "same-origin-allow-popups"
  end
end

local function point(header, name, value, place)
  if type(value) == "table" then
    value = value[1]
  end
  header[name] = locations.rewrite(value, place)
end

-- Makes the header fields of the app's answer those that the caller gets; why not, where the answer is none that may pass.
function _M.to_caller(call)
  local found, header = ngx.resp.get_headers(0), ngx.header
  setmetatable(found, nil) -- OpenResty's spells a name that is not there anew, once for each time it is looked up
  local named = named_in(ngx.var.upstream_http_connection)
  local on_console, count = call.prefix ~= "", 0
  for name, value in pairs(found) do
    count = count + (OWN[name] and 0 or type(value) == "table" and #value or 1)
    if POINTERS[name] then
      point(header, name, value, call)
    elseif not OWN[name] and (not reaches_caller[name] or (on_console and NOT_ON_CONSOLE[name]) or (named and named[name])) then
      header[name] = nil
    end
  end
  if count > MOST_FIELDS then
    return "it has more than " .. MOST_FIELDS .. " header fields"
  end
  if on_console then
    header["Content-Security-Policy"] = "sandbox"
  else
    on_own_host(header, found)
  end
  header["X-Content-Type-Options"] = "nosniff"
end

-- The fields of the answer to a WebSocket's handshake, a list of names and values, as the caller gets them.
function _M.of_handshake(call, fields)
  local passed, on_console = {}, call.prefix ~= ""
  for _, field in ipairs(fields) do
    local name, value = field[1], field[2]
    local ours = OF_HANDSHAKE[name] or not reaches_caller[name] or (on_console and NOT_ON_CONSOLE[name]) or POINTERS[name]
    if name == "set-cookie" and not on_console then
      value = cookies.to_caller(value)
    end
    if not ours and value then
      passed[#passed + 1] = { name, value }
    end
  end
  return passed
end

return _M
