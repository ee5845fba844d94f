-- The runner as the front door asks it: where a model runs, and that it be started. Its errors come as they are.

local inside = require "modelyard.inside"
local problems = require "modelyard.problems"
local routes = require "modelyard.routes"

local _M = {}

local SOCKET = "/runner.sock"
local ANSWERS_WITHIN_MS = 15000
local OK = 200

local function failed()
  return problems.new("unavailable", "runner_failed", "The part that starts models did not answer as it should.",
    "Call again after the pause; if it happens again, look into the runner's log.", { retry_after_s = 2 })
end

local function ask(method, target, within_ms)
  local status, told = inside.ask_json(inside.folder() .. SOCKET, method, target, { timeout_ms = within_ms })
  if not status then
    return nil, told == "rubbish" and failed() or problems.runner_away()
  end
  if status ~= OK then
    return nil, problems.arrived(told) or failed()
  end
  return told
end

local function query(words)
  return ngx.encode_args(words)
end

-- The model's route as the catalogue has it, false where there is none; nil and the error where that cannot be told.
function _M.lookup(key)
  local owner, name = string.match(key, "^([^/]*)/(.*)$")
  local target = owner == "" and "/labelled?" .. query({ label = name }) or "/route?" .. query({ owner = owner, name = name })
  local found, problem = ask("GET", target, ANSWERS_WITHIN_MS)
  if not found then
    return nil, problem
  end
  return type(found.route) == "table" and found.route or false
end

-- Why nothing serves that name, for those who may know: the error; nil where there is no such model.
function _M.explain(owner, name)
  local _, problem = ask("GET", "/absence?" .. query({ owner = owner, name = name }), ANSWERS_WITHIN_MS)
  return problem
end

-- A running route and what its start took; nil and the error. The runner ends the wait: what is longer is a runner that hangs.
function _M.activate(model_id, hold_s)
  local activated, problem = ask("POST", "/activate?" .. query({ model = model_id }), hold_s * 1000 + ANSWERS_WITHIN_MS)
  if not activated then
    return nil, problem
  end
  return routes.ready(activated.route), activated.timings
end

return _M
