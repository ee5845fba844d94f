-- Calls in flight, in a shared dictionary, by the worker that carries them: what a dead worker had counted goes with it.
--
-- A worker counts a call in before it reads the route, and the runner writes a route before it reads the counts; both go through
-- the dictionary's lock, so that either the call sees the new route or the runner sees the call (see `modelyard/runtime/routes.py`).

local ffi = require "ffi"

ffi.cdef "int kill(int pid, int sig);"

local _M = {}

local counts = ngx.shared.counts
local NO_SUCH_PROCESS = 3
local ENTERING_S = 1
local MOST_NAMED = 1000
local ended, ended_at -- what was written last
local pid -- this worker
local names, named = {}, 0 -- of its counts, by key and by instance: to make them costs each call more than to keep so many

local function names_of(subject)
  local found = names[subject]
  if not found then
    found = { undirected = pid .. " u " .. subject, in_flight = pid .. " f " .. subject, directed = pid .. " d " .. subject }
    if named == MOST_NAMED then
      names, named = {}, 0
    end
    names[subject], named = found, named + 1
  end
  return found
end

local function less(name, stays)
  local left = counts:incr(name, -1)
  if not stays and left and left <= 0 then
    counts:delete(name) -- no name stays in memory for having been asked for once
  end
end

local function more(name)
  local now, why = counts:incr(name, 1, 0)
  if not now then
    error("calls cannot be counted: " .. why)
  end
end

local function workers()
  local found = {}
  for each in string.gmatch(counts:get("workers") or "", "%d+") do
    found[#found + 1] = each
  end
  return found
end

local function is_alive(each)
  return ffi.C.kill(tonumber(each), 0) == 0 or ffi.errno() ~= NO_SUCH_PROCESS
end

-- Takes the counts of dead workers away, and enters this one; each worker calls it as it starts. Workers start at the same time,
-- and nothing may wait here but by turning: it is a matter of microseconds.
function _M.begin()
  pid = tostring(ngx.worker.pid())
  while not counts:add("entering", pid, ENTERING_S) do
    ngx.update_time()
  end
  local living, dead = { pid }, {}
  for _, each in ipairs(workers()) do
    if each ~= pid then
      local list = is_alive(each) and living or dead
      list[#list + 1] = each
    end
  end
  counts:set("workers", table.concat(living, " "))
  if #dead > 0 then
    for _, name in ipairs(counts:get_keys(0)) do
      for _, each in ipairs(dead) do
        if name:sub(1, #each + 1) == each .. " " then
          counts:delete(name)
        end
      end
    end
  end
  counts:delete("entering")
  counts:add("began", ngx.now())
end

-- Counts a call in; it must come before the route is read.
function _M.enter(key)
  local of_key = names_of(key)
  more(of_key.undirected)
  more(of_key.in_flight)
end

-- Notes that a call goes to this instance; `before` is the one that it was directed to, nil for none yet.
function _M.direct(key, before, instance)
  more(names_of(instance).directed)
  less(before and names_of(before).directed or names_of(key).undirected, true)
end

-- Counts a call out, once for each `enter`. Its end is noted before it is taken off.
function _M.leave(key, instance, known)
  local of_key = names_of(key)
  less(instance and names_of(instance).directed or of_key.undirected, known)
  local now = ngx.now()
  if known and (key ~= ended or now ~= ended_at) then -- many end within one tick of the clock
    counts:set("e " .. key, now)
    ended, ended_at = key, now
  end
  less(of_key.in_flight, known)
end

-- Forgets the counts of nothing; the runner's snapshots are the time for it.
function _M.forget_nothing()
  for _, name in ipairs(counts:get_keys(0)) do
    if name:sub(1, #pid + 1) == pid .. " " and counts:get(name) == 0 then
      counts:delete(name)
    end
  end
end

-- Counts a call that reached the app.
function _M.reached(model_id)
  counts:incr("c " .. model_id, 1, 0)
end

local function sum(kind, name)
  local found = 0
  for _, each in ipairs(workers()) do
    found = found + (counts:get(each .. kind .. name) or 0)
  end
  return found
end

-- In flight, seconds idle, and calls of a model that is called by these keys.
function _M.stats(model_id, keys)
  local calls, now = counts:get("c " .. model_id) or 0, 0
  for _, key in ipairs(keys) do
    now = now + sum(" f ", key)
  end
  local ended = counts:get("began") or ngx.now()
  for _, key in ipairs(keys) do
    ended = math.max(ended, counts:get("e " .. key) or 0)
  end
  ngx.update_time()
  return { in_flight = now, idle_s = now > 0 and 0 or math.max(0, ngx.now() - ended), calls = calls }
end

-- Calls that may still reach the instance; the undirected are read first, as a call is directed before it stops being undirected.
function _M.calls_to(instance, keys)
  local found = 0
  for _, key in ipairs(keys) do
    found = found + sum(" u ", key)
  end
  return found + sum(" d ", instance)
end

return _M
