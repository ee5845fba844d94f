-- What the gateway answers itself: the health of the whole, and the description of all calls.

local calls = require "modelyard.calls"
local cjson = require "cjson"
local inside = require "modelyard.inside"
local problems = require "modelyard.problems"
local refuse = require "modelyard.refusing".refuse
local routes = require "modelyard.routes"
local services = require "modelyard.services"
local trust = require "modelyard.trust"

local _M = {}

local ROLES = { "auth", "upload", "builder", "inference", "runner" }
local DESCRIBED = { "auth", "upload", "inference" }
local WITHIN_MS = 5000
local OK = 200
local HEALTHY, DOWN = "healthy", "down"

local function write(status, text)
  ngx.status = status
  local header = ngx.header
  header.content_type = "application/json"
  header["Content-Security-Policy"] = "default-src 'none'"
  header["X-Content-Type-Options"] = "nosniff"
  header["X-Request-Id"] = calls.current().request_id
  header["Content-Length"] = #text
  if ngx.req.get_method() ~= "HEAD" then
    ngx.print(text)
  end
end

-- One process's own health; nil where it does not answer.
local function health_of(path)
  local _, told = inside.ask_json(path, "GET", "/health", { timeout_ms = WITHIN_MS })
  return type(told) == "table" and told or nil
end

local function states_of(role)
  local states, name = {}, nil
  for _, ending in ipairs({ ".sock", ".starting" }) do
    for _, path in ipairs(services.live(role, ending)) do
      local told = health_of(path)
      if told then
        states[#states + 1] = tostring(told.status)
        name = name or told.service
      end
    end
  end
  return { role = role, states = #states > 0 and states or { DOWN }, name = name }
end

-- The gateway's own health with that of each role; one is asked beside the other.
local function health()
  local asked, roles, names = {}, {}, {}
  for n, role in ipairs(ROLES) do
    asked[n] = ngx.thread.spawn(states_of, role)
  end
  local whole = trust.look() and routes.is_told()
  for _, each in ipairs(asked) do
    local _, told = ngx.thread.wait(each)
    roles[told.role] = told.states
    names[#names + 1] = told.name
    local healthy = false
    for _, state in ipairs(told.states) do
      healthy = healthy or state == HEALTHY
    end
    whole = whole and healthy
  end
  local body = { service = "gateway", status = whole and HEALTHY or "degraded", roles = roles }
  local text = cjson.encode(body)
  -- An empty list would be written as an empty object.
  write(OK, text:sub(1, -2) .. ',"services":' .. (#names > 0 and cjson.encode(names) or "[]") .. "}")
end

-- The members of one object of a JSON text, as text: documents are put together without being read, as empty lists and objects
-- are one to the decoder.
local function members(text, name)
  local at = text:find('"' .. name .. '":{', 1, true)
  if not at then
    return ""
  end
  local start = at + #name + 4
  local deep, is_string, n = 0, false, start - 1
  while n <= #text do
    local char = text:sub(n, n)
    if is_string then
      if char == "\\" then
        n = n + 1
      elseif char == '"' then
        is_string = false
      end
    elseif char == '"' then
      is_string = true
    elseif char == "{" then
      deep = deep + 1
    elseif char == "}" then
      deep = deep - 1
      if deep == 0 then
        return text:sub(start, n - 1)
      end
    end
    n = n + 1
  end
  return ""
end

local function joined(texts, name)
  local found = {}
  for _, text in ipairs(texts) do
    local inner = members(text, name)
    if inner ~= "" then
      found[#found + 1] = inner
    end
  end
  return table.concat(found, ",")
end

-- The descriptions of the services as one; each says itself who may read it.
local function description()
  local told = {}
  for name, value in pairs({ Authorization = ngx.var.http_authorization or "", Cookie = ngx.var.http_cookie or "", Host = ngx.var.http_host }) do
    told[name] = value ~= "" and value or nil
  end
  local texts = {}
  for n, role in ipairs(DESCRIBED) do
    local path = services.next_of(role)
    local status, text
    if path then
      status, text = inside.ask(path, "GET", "/openapi.json", { timeout_ms = WITHIN_MS, headers = told })
    end
    if not status then
      return refuse(problems.service_down(role))
    elseif status ~= OK then
      return refuse(status == 401 and problems.no_credential() or problems.not_found())
    end
    texts[n] = text
  end
  local head = '{"openapi":"3.1.0","info":{' .. members(texts[1], "info") .. '},"paths":{' .. joined(texts, "paths")
  write(OK, head .. '},"components":{"schemas":{' .. joined(texts, "schemas") .. "}}}")
end

local ANSWERS = {
  ["/health"] = health,
  ["/livez"] = function() write(OK, '{"status":"alive"}') end,
  ["/openapi.json"] = description,
}

function _M.answer()
  if not (ngx.req.get_method() == "GET" or ngx.req.get_method() == "HEAD") then
    return refuse(problems.new("wrong_method", "method_not_allowed", "This cannot be done here.", "See /openapi.json."))
  end
  return ANSWERS[ngx.var.uri]()
end

return _M
