-- How many calls are answered within a minute, counted as `modelyard/web/limits.py` does, by all workers together.
--
-- A window is two numbers: the calls of this minute, and those of the last one, weighted by how much of it still counts.

local lrucache = require "resty.lrucache"
local problems = require "modelyard.problems"
local trust = require "modelyard.trust"

local _M = {}

local WINDOW_S = 60
local ACCOUNT_WORTH = 2
local IPV6_SITE_GROUPS = 4
local dict = ngx.shared.limits
local proven = ngx.shared.proven
local recent = assert(lrucache.new(10000)) -- those of the proven that this worker has seen within the window

local windows = assert(lrucache.new(10000))
local policies = {}

-- The window that runs, of this name: what its count is called, and the calls of the last one, which do not change any more.
local function window_of(name, now)
  local number = math.floor(now / WINDOW_S)
  local found = windows:get(name)
  if not found or found.number ~= number then
    found = { number = number, current = name .. " " .. number, before = dict:get(name .. " " .. number - 1) or 0 }
    windows:set(name, found)
  end
  return found
end

-- The windows of a caller, for its credential and for its account; it keeps them for as long as they run.
local function windows_of(principal, now)
  local found = principal.windows
  if not found or found.number ~= math.floor(now / WINDOW_S) then
    local own = window_of("calls " .. principal.credential, now)
    found = { number = own.number, own = own, account = window_of("calls-sum " .. principal.account_id, now) }
    principal.windows = found
  end
  return found
end

local function weight(now)
  return 1 - now % WINDOW_S / WINDOW_S
end

local function used(name, now)
  local window = window_of(name, now)
  return window.before * weight(now) + (dict:get(window.current) or 0)
end

-- Counts one call, unless it is one too many: what the window holds, or nil.
local function take(window, amount, now)
  local so_far = window.before * weight(now) + dict:incr(window.current, 1, 0, 2 * WINDOW_S)
  if so_far > amount then
    dict:incr(window.current, -1)
    return nil
  end
  return so_far
end

local function reset_s(now)
  return math.max(1, math.ceil(WINDOW_S - now % WINDOW_S))
end

local function limited(now)
  return problems.new("limited", "rate_limited", "Too many calls within a minute.",
    "Wait as long as Retry-After says; the settings below `limits` hold the numbers.", { retry_after_s = reset_s(now) })
end

-- What stands for whoever calls from there: a caller has a whole /64 of IPv6 addresses to choose from.
local function site(address)
  if not address:find(":", 1, true) then
    return address
  end
  local before, after = address:match("^(.-)::(.*)$")
  local groups = {}
  for group in (before or address):gmatch("%x+") do
    groups[#groups + 1] = group
  end
  if before then
    local _, rest = after:gsub("%x+", "")
    for _ = #groups + 1, 8 - rest do
      groups[#groups + 1] = "0"
    end
    for group in after:gmatch("%x+") do
      groups[#groups + 1] = group
    end
  end
  return table.concat(groups, ":", 1, math.min(#groups, IPV6_SITE_GROUPS))
end

-- nil where the credential may be looked at, which may cost a question; an address that has used up its calls guesses no further.
function _M.before(call)
  call.is_proven = recent:get(call.credential)
  if call.credential == "" or call.is_proven or proven:get(ngx.md5(call.credential)) then
    return nil
  end
  local now = ngx.now()
  return used("anonymous " .. site(ngx.var.remote_addr), now) + 1 > trust.rules.anonymous_per_minute and limited(now) or nil
end

local function policy_of(name, amount)
  local found = policies[name]
  if not found or found.amount ~= amount then
    found = { amount = amount, text = '"' .. name .. '";q=' .. amount .. ";w=" .. WINDOW_S }
    policies[name] = found
  end
  return found.text
end

local function counted(policy, amount, now, window, account)
  local so_far = take(window, amount, now)
  local over = not so_far or (account and not take(account, amount * ACCOUNT_WORTH, now))
  local left = over and 0 or math.max(0, math.floor(amount - so_far))
  return policy_of(policy, amount), '"' .. policy .. '";r=' .. left .. ";t=" .. reset_s(now),
    over and limited(now) or nil
end

-- Counts the call of a model: for its account, or for its address where the credential was not good, or there was none.
-- The values of `RateLimit-Policy` and `RateLimit`, and the error of a call too many.
function _M.count(call, principal)
  local rules, now = trust.rules, ngx.now()
  if not principal then
    if call.credential ~= "" then
      recent:delete(call.credential)
      proven:delete(ngx.md5(call.credential))
    end
    return counted("anonymous", rules.anonymous_per_minute, now, window_of("anonymous " .. site(ngx.var.remote_addr), now))
  end
  if call.credential ~= "" and not call.is_proven and not recent:get(call.credential) then
    recent:set(call.credential, true, WINDOW_S)
    proven:set(ngx.md5(call.credential), true)
  end
  local of_caller = windows_of(principal, now)
  return counted("calls", rules.calls_per_minute, now, of_caller.own, of_caller.account)
end

return _M
