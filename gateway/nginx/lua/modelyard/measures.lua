-- What this door counts, for Prometheus, under the names of `modelyard/run/metrics.py`. A worker counts in its own memory, which costs
-- a call nothing, and adds it to the shared dictionary each second.

local _M = {}

local measures = ngx.shared.measures
local EVERY_S = 1
local MODELS, OTHER = 200, "_OTHER"
local BOUNDS_S = { 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300 }
local OUTCOMES = { not_ready = "not_ready", bad_answer = "bad_answer", too_slow = "too_slow", unavailable = "unavailable", internal = "internal" }
local LEFT, SERVER_ERROR = 499, 500
local BODILESS = { [204] = true, [304] = true }
local labels = { [""] = "" }
local predictions, durations, seconds = {}, {}, 0 -- of this worker, since it handed in last: by label and outcome, by bound, their sum

-- The value of the label: the first models that are called are counted each by itself.
local function label_of(model_id)
  local label = labels[model_id]
  if not label then
    label = measures:get("m " .. model_id)
    if not label then
      label = measures:incr("models", 1, 0) <= MODELS and model_id or OTHER
      if label ~= OTHER and not measures:add("m " .. model_id, label) then
        measures:incr("models", -1) -- another worker met it at the same time
      end
    end
    if label == OTHER then
      return label -- not kept: there may be any number of these
    end
    labels[model_id] = label
  end
  return label
end

local function is_whole(call, status)
  if call.is_whole or call.is_relayed then
    return true
  end
  return (call.is_socket or call.method == "HEAD" or BODILESS[status]) and ngx.var.request_completion == "OK"
end

local function outcome_of(call)
  if call.refusal then
    return OUTCOMES[call.refusal] or "refused"
  end
  local status = ngx.status
  if status == LEFT or (status == 0 and not call.is_relayed) then
    return "left"
  elseif not is_whole(call, status) then
    return "cut"
  end
  return status >= SERVER_ERROR and "app_error" or "answered"
end

-- Counts a call of a model, at its end.
function _M.ended(call)
  if not call.is_of_model then
    return
  end
  local outcome = outcome_of(call)
  local label = label_of(call.route and call.route.model_id or "")
  local counted = predictions[label]
  if not counted then
    counted = {}
    predictions[label] = counted
  end
  counted[outcome] = (counted[outcome] or 0) + 1
  if not call.is_socket and (outcome == "answered" or outcome == "app_error") then
    local took_s, bound = ngx.now() - call.began, 1
    while BOUNDS_S[bound] and took_s > BOUNDS_S[bound] do
      bound = bound + 1
    end
    durations[bound] = (durations[bound] or 0) + 1
    seconds = seconds + took_s
  end
end

local function hand_in()
  local by_label, by_bound, sum = predictions, durations, seconds
  predictions, durations, seconds = {}, {}, 0
  -- Another worker may tell of both in the middle of this: whatever it tells of a call's end, it tells how long the call took.
  measures:incr("s", sum, 0)
  for bound, count in pairs(by_bound) do
    measures:incr("d " .. bound, count, 0)
  end
  for label, counted in pairs(by_label) do
    for outcome, count in pairs(counted) do
      measures:incr("p " .. label .. " " .. outcome, count, 0)
    end
  end
end

-- Each worker calls it as it starts.
function _M.begin()
  assert(ngx.timer.every(EVERY_S, hand_in))
end

local function add_predictions(lines)
  lines[#lines + 1] = "# HELP modelyard_predictions_total Calls of models by model id and outcome; no model where none was reached."
  lines[#lines + 1] = "# TYPE modelyard_predictions_total counter"
  local names = {}
  for _, name in ipairs(measures:get_keys(0)) do
    if name:sub(1, 2) == "p " then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  for _, name in ipairs(names) do
    local model, outcome = name:match("^p (.*) (%S+)$")
    lines[#lines + 1] = string.format('modelyard_predictions_total{model="%s",outcome="%s"} %d', model, outcome, measures:get(name))
  end
end

local function add_durations(lines)
  local name, below = "modelyard_prediction_duration_seconds", 0
  lines[#lines + 1] = "# HELP " .. name .. " Calls that an app answered, to the end of its answer, in whole milliseconds."
  lines[#lines + 1] = "# TYPE " .. name .. " histogram"
  for bound = 1, #BOUNDS_S + 1 do
    below = below + (measures:get("d " .. bound) or 0)
    lines[#lines + 1] = string.format('%s_bucket{le="%s"} %d', name, BOUNDS_S[bound] or "+Inf", below)
  end
  lines[#lines + 1] = string.format("%s_count %d", name, below)
  lines[#lines + 1] = string.format("%s_sum %.3f", name, measures:get("s") or 0)
end

-- The text that Prometheus reads. What other workers counted within the last second may be missing.
function _M.text()
  hand_in()
  local lines = {}
  add_predictions(lines)
  add_durations(lines)
  return table.concat(lines, "\n") .. "\n"
end

return _M
