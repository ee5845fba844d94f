-- Turns what a caller sent into a principal: access tokens by their signature, API keys and cookies by asking the auth role.

local cjson = require "cjson"
local inside = require "modelyard.inside"
local lrucache = require "resty.lrucache"
local problems = require "modelyard.problems"
local services = require "modelyard.services"
local tokens = require "modelyard.tokens"
local trust = require "modelyard.trust"

local _M = {}

local MOST_KEPT = 10000
local WITHIN_MS = 5000
local OK = 200
local API_KEY = [[\Amy_[0-9A-Za-z]{12}_[0-9A-Za-z]{40}_([0-9a-f]{8})\z]]
local kept = assert(lrucache.new(MOST_KEPT))
local by_fields = assert(lrucache.new(MOST_KEPT)) -- the same by whole fields, which are long: no name is made of them for each call

-- What it may be at all; what is not gets no further.
local function is_plausible(text)
  return #text > 0 and #text <= tokens.LONGEST and not string.find(text, "[^!-~]")
end

local function is_key(text)
  local found = ngx.re.match(text, API_KEY, "jo")
  return found ~= nil and string.format("%08x", ngx.crc32_long(text:sub(4, -10))) == found[1]
end

local function set_of(list)
  local found = {}
  for _, each in ipairs(list) do
    found[each] = true
  end
  return found
end

local function of_claims(token)
  local told, kid = tokens.verify(token, tokens.API, ngx.now())
  if not told then
    return nil
  end
  local own, ends = "session:" .. told.sid, told.exp + tokens.LEEWAY_S
  local scopes = {}
  for scope in string.gmatch(told.scope, "%S+") do
    scopes[scope] = true
  end
  return {
    principal = { username = told.name, role = told.role, scopes = scopes, account_id = told.sub, credential = own },
    ends = ends, ground = { ends = ends, account = "account:" .. told.sub, epoch = told.epoch, own = own, kid = kid },
  }
end

local function asked(question)
  for _, path in ipairs(services.live("auth")) do
    local status, told = inside.ask_json(path, "POST", "/.inside/principal",
      { timeout_ms = WITHIN_MS, body = cjson.encode(question), headers = { ["Content-Type"] = "application/json" } })
    if status == OK then
      local known = told.known
      if type(known) ~= "table" then
        return nil
      end
      known.principal.scopes = set_of(known.principal.scopes)
      if known.ground.ends == cjson.null then
        known.ground.ends = nil
      end
      return { principal = known.principal, ends = known["until"], ground = known.ground }
    end
  end
  return nil, problems.service_down("auth")
end

local function good(mark, where)
  local known = where:get(mark)
  return known and known.ends > ngx.now() and trust.holds(known.ground) and known or nil
end

local function known_by(mark, find)
  local known, problem = good(mark, kept), nil
  if known then
    return known
  end
  known, problem = find()
  -- Looked at again: it may have been revoked while it was asked about.
  if not known or not trust.holds(known.ground) then
    kept:delete(mark)
    return nil, problem
  end
  kept:set(mark, known)
  return known
end

-- Whom an API key or an access token stands for: `principal` and what ends it, `ground`; nil where it is not good,
-- with the problem where that cannot be told.
function _M.by_token(token)
  if not is_plausible(token) then
    return nil
  end
  return known_by(token, function()
    if is_key(token) then
      return asked({ token = token })
    end
    return of_claims(token)
  end)
end

-- As `by_token`, of the value of an `Authorization` field.
function _M.by_field(field)
  local known, problem = good(field, by_fields), nil
  if known then
    return known
  end
  local scheme, token = field:match("^(%S+)%s+(.-)%s*$")
  if scheme and scheme:lower() == "bearer" then
    known, problem = _M.by_token(token)
    if known then
      by_fields:set(field, known)
    end
  end
  return known, problem
end

-- Whom the cookie of this one model's own host stands for.
function _M.by_app_cookie(value, model_id)
  if not is_plausible(value) then
    return nil
  end
  return known_by("app " .. model_id .. " " .. value, function()
    local told = tokens.verify(value, tokens.APP_HOST, ngx.now())
    if not told or told.model ~= model_id then
      return nil
    end
    return asked({ cookie = value, model_id = model_id })
  end)
end

return _M
