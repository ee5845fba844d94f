-- The route table, in a shared dictionary: the runner writes it through the control socket, every worker reads it.

local cjson = require "cjson"
local lrucache = require "resty.lrucache"

local _M = {}

local dict = ngx.shared.routes
local ABSENT_KEYS_S = 3600 -- a deleted model's keys are known for so long: its last calls are counted under them
local LOCK_S = 5
local MOST_DECODED = 10000
local is_told = false
local found, found_at = {}, -1 -- routes by key, and the count of changes that they were read under
local decoded = assert(lrucache.new(MOST_DECODED)) -- by the text itself, which is one string for as long as it stays the same

-- Under what the calls of a model come: by its name, and by the label of its own host.
function _M.by_name(owner, name)
  return owner .. "/" .. name
end

function _M.by_label(label)
  return "/" .. label
end

local function keys_of(change, label)
  local keys = { _M.by_name(change.owner, change.name) }
  if label and label ~= "" then
    keys[2] = _M.by_label(label)
  end
  return keys
end

-- Writers wait for one another; a worker that dies over it is not waited for.
local function locked(work)
  while not dict:add("lock", true, LOCK_S) do
    ngx.sleep(0.001)
  end
  local done, problem = pcall(work)
  dict:delete("lock")
  if not done then
    error(problem, 0)
  end
end

local function store(name, value, ttl)
  local done, why = dict:safe_set(name, value, ttl or 0)
  if not done then
    error("the route table is full: " .. why, 0)
  end
end

local function put(route)
  local keys, text = keys_of(route, route.label), cjson.encode(route)
  store("k " .. route.model_id, table.concat(keys, " "))
  for _, key in ipairs(keys) do
    store("r " .. key, text)
  end
end

local function take_out(removed)
  local known = dict:get("k " .. removed.model_id)
  local by_name = _M.by_name(removed.owner, removed.name)
  for key in string.gmatch(known or by_name, "%S+") do
    local text = dict:get("r " .. key)
    if text and cjson.decode(text).model_id == removed.model_id then
      dict:delete("r " .. key)
    end
  end
  store("k " .. removed.model_id, known or by_name, ABSENT_KEYS_S)
end

local function edition_of(told)
  return string.format("%.0f %.0f", told.term, told.generation)
end

local function is_older(told)
  local term, generation = string.match(dict:get("edition") or "-1 -1", "(%S+) (%S+)")
  term, generation = tonumber(term), tonumber(generation)
  return told.term < term or (told.term == term and told.generation < generation)
end

-- Takes every route anew; false where a later snapshot came before.
function _M.replace(snapshot)
  local taken = false
  locked(function()
    if is_older(snapshot.edition) then
      return
    end
    dict:incr("changes", 1, 0)
    local stays = {}
    for _, route in ipairs(snapshot.routes) do
      put(route)
      stays["k " .. route.model_id] = true
      for _, key in ipairs(keys_of(route, route.label)) do
        stays["r " .. key] = true
      end
    end
    for _, name in ipairs(dict:get_keys(0)) do
      local kind = string.sub(name, 1, 2)
      if not stays[name] and kind == "r " then
        dict:delete(name)
      elseif not stays[name] and kind == "k " then
        dict:expire(name, ABSENT_KEYS_S)
      end
    end
    dict:incr("changes", 1, 0)
    store("edition", edition_of(snapshot.edition))
    taken = true
  end)
  return taken
end

-- Takes changes to the snapshot that was taken last; false where they belong to another one.
function _M.change(delta)
  local taken = false
  locked(function()
    if edition_of(delta.edition) ~= dict:get("edition") then
      return
    end
    for _, step in ipairs(delta.steps) do
      dict:incr("changes", 1, 0)
      if step.route and step.route ~= cjson.null then
        put(step.route)
      else
        take_out(step.removed)
      end
      dict:incr("changes", 1, 0)
    end
    taken = true
  end)
  return taken
end

-- Whether a runner has said which routes there are.
function _M.is_told()
  is_told = is_told or dict:get("edition") ~= nil
  return is_told
end

-- The route as the runner wrote it last, not to be changed; nil: ask the runner. What was found stays good until the next change is
-- ended: `changes` is read first, and its writer answers, and so lets calls be counted, after it wrote it.
function _M.find(key)
  local changes = _M.changes()
  if changes ~= found_at then
    found, found_at = {}, changes
  end
  local route = found[key]
  if route then
    return route
  end
  local text = dict:get("r " .. key)
  if not text then
    return nil
  end
  route = decoded:get(text)
  if not route then
    route = _M.ready(cjson.decode(text))
    decoded:set(text, route)
  end
  found[key] = route
  return route
end

-- The route with what every call needs of it, worked out once.
function _M.ready(route)
  local shared = {}
  for _, username in ipairs(route.shared_with or {}) do
    shared[username] = true
  end
  route.shared = shared
  route.peer = route.socket ~= "" and "unix:" .. route.socket or nil
  route.keys = keys_of(route, route.label)
  return route
end

-- Grows with every change; read before a lookup and handed to `learn`.
function _M.changes()
  return dict:get("changes") or 0
end

-- Whether the runner said a moment ago, and since the last change, that there is no such model.
function _M.is_absent(key)
  return dict:get("a " .. key) == _M.changes()
end

-- Keeps what a lookup answered, unless anything changed meanwhile: the answer may then be older than the change.
function _M.learn(key, route, changes, absent_s)
  locked(function()
    if changes ~= _M.changes() then
      return
    end
    if route then
      put(route)
    else
      dict:set("a " .. key, changes, absent_s)
    end
  end)
end

-- The keys of a model by its id, also for a while after it was deleted.
function _M.keys(model_id)
  local found = {}
  for key in string.gmatch(dict:get("k " .. model_id) or "", "%S+") do
    found[#found + 1] = key
  end
  return found
end

-- Names this life of the door; the runner sees by another name that all routes must be told anew.
function _M.boot()
  return dict:get("boot")
end

-- Draws the name; called in the master, whose dictionaries outlive a reload.
function _M.begin()
  local source = assert(io.open("/dev/urandom", "rb"))
  local drawn = source:read(8)
  source:close()
  dict:add("boot", (drawn:gsub(".", function(byte) return string.format("%02x", string.byte(byte)) end)))
end

return _M
