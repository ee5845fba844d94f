-- Who may call which model: `admitting` of `modelyard/web/awaited.py` over `admit_call` of `modelyard/web/access.py`.

local problems = require "modelyard.problems"
local trust = require "modelyard.trust"

local _M = {}

local RETRY_AFTER_S = 10

-- nil where this caller may call the model, or the error; a route that is nil or false is of no model. With the error, whether it is that of a name
-- that no version serves and that is the caller's, who may know why.
function _M.refusal(principal, owner, name, route)
  if not principal then
    return not (route and route.public) and problems.no_credential() or nil
  end
  local scopes = principal.scopes
  if not (scopes.predict or scopes["predict:" .. owner .. "/" .. name]) then
    return problems.new("forbidden", "scope_too_small", "This credential is not good for calling this model.",
      "Make a key for it: modelyard keys create --scope predict")
  end
  local ours = owner == trust.rules.platform
  if not route and ours and trust.builtins[name] then
    return problems.new("not_ready", "weights_missing",
      "The built-in model " .. name .. " does not serve: its weights are not on this server yet, or it is being built.",
      "Run on the server: modelyard models pull " .. name, { retry_after_s = RETRY_AFTER_S })
  end
  local sees = principal.role == "admin" or principal.username == owner
  if not route then
    return problems.not_found(), sees
  end
  return not (route.public or ours or sees or route.shared[principal.username]) and problems.not_found() or nil
end

return _M
