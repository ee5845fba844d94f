-- What the auth role says of keys, revocations and rules: one worker asks every half second, and all believe it.

local cjson = require "cjson"
local inside = require "modelyard.inside"
local services = require "modelyard.services"
local tokens = require "modelyard.tokens"

local _M = {}

local EVERY_S = 0.5
local WITHIN_MS = 2000
local OK = 200
local dict = ngx.shared.trust
local seen, looked_at = 0, 0

-- The rules of the settings, nil before the first answer; the revocations by subject.
_M.rules = nil
_M.revoked = {}

local function ask()
  for _, path in ipairs(services.live("auth")) do
    local status, text = inside.ask(path, "GET", "/.inside/trust", { timeout_ms = WITHIN_MS })
    if status == OK then
      if text ~= dict:get("text") then
        dict:set("text", text)
        dict:incr("edition", 1, 0)
      end
      return
    end
  end
end

local function ask_again(ending)
  if ending then
    return
  end
  local done, problem = pcall(ask)
  if not done then
    ngx.log(ngx.ERR, "the auth role cannot be asked: ", problem)
  end
  ngx.timer.at(EVERY_S, ask_again)
end

-- Called in each worker as it starts.
function _M.begin()
  if ngx.worker.id() == 0 then
    assert(ngx.timer.at(0, ask_again))
  end
end

-- Takes what was said last; costs a look where nothing changed, and nothing within one tick of the clock. Whether anything was said
-- at all.
function _M.look()
  local now = ngx.now()
  if now == looked_at and _M.rules then
    return true
  end
  looked_at = now
  local edition = dict:get("edition") or 0
  if edition ~= seen then
    local told = cjson.decode(dict:get("text"))
    tokens.trust(told.keys)
    _M.revoked, _M.rules, seen = told.revoked, told.rules, edition
    local hosts = { localhost = true, ["127.0.0.1"] = true, ["::1"] = true }
    for _, host in ipairs(told.rules.hosts) do
      hosts[host:lower()] = true
    end
    local builtins = {}
    for _, name in ipairs(told.rules.builtins) do
      builtins[name] = true
    end
    _M.hosts, _M.below_apps, _M.builtins = hosts, "." .. told.rules.apps_domain, builtins
  end
  return _M.rules ~= nil
end

-- Whether nothing has ended the credential since it was looked at (`modelyard/web/credentials.py`).
function _M.holds(ground)
  local revoked = _M.revoked
  if (ground.ends and ground.ends <= ngx.now()) or revoked[ground.own] then
    return false
  end
  if ground.kid ~= "" and not tokens.trusts(ground.kid) then
    return false
  end
  return ground.epoch >= (revoked[ground.account] or 0)
end

return _M
