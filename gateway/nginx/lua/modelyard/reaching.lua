-- The way of one call to an instance: found, and woken where its model is cold.

local calls = require "modelyard.calls"
local problems = require "modelyard.problems"
local routes = require "modelyard.routes"
local runner = require "modelyard.runner"
local trust = require "modelyard.trust"

local _M = {}

local PROBE_MS = 5000
local LEFT = 499

-- The model's route, asked for where the table has none; nil where there is none, with the error where that cannot be told.
function _M.find_route(call)
  local route = routes.find(call.key)
  if route or routes.is_absent(call.key) then
    return route
  end
  local changes = routes.changes()
  local found, problem = runner.lookup(call.key)
  if found == nil then
    return nil, problem
  end
  routes.learn(call.key, found or nil, changes, trust.rules.absent_s)
  return found and routes.ready(found) or nil
end

-- Sees to it that the model runs, once; the error where it does not.
function _M.wake(call)
  ngx.on_abort(function()
    if not call.is_relayed then
      ngx.exit(LEFT)
    end
  end)
  local route, told = runner.activate(call.route.model_id, trust.rules.hold_s)
  if not route then
    return told
  end
  call.woken, call.timings, call.since = true, told, ngx.now()
  calls.direct(call, route)
end

-- nil where the way to an instance is known, or the error.
function _M.reach(call)
  if call.route.state ~= "running" then
    local problem = _M.wake(call)
    if problem then
      return problem
    end
  else
    calls.direct(call, call.route)
  end
  return not call.peer and problems.no_inlet() or nil
end

-- As `reach`, for a body that can be sent once: that somebody listens is seen before.
function _M.reach_surely(call)
  local problem = _M.reach(call)
  while not problem do
    local sock = ngx.socket.tcp()
    sock:settimeout(PROBE_MS)
    if sock:connect(call.peer) then
      sock:close()
      return nil
    end
    problem = call.woken and problems.instance_gone() or _M.wake(call)
  end
  return problem
end

return _M
