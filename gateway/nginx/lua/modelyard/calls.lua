-- The calls that are on their way through this worker: what is known of each, from its first phase to its last.

local counts = require "modelyard.counts"
local ffi = require "ffi"
local get_request = require "resty.core.base".get_request
local paths = require "modelyard.paths"
local request_ids = require "modelyard.request_ids"
local traces = require "modelyard.traces"

local _M = {}

local TO_MODEL = "/m/"
local cast, address_t = ffi.cast, ffi.typeof("uintptr_t")
local scheme -- of every request: there is one way in
local open = {} -- by the request's place in memory: it stays through internal redirects, which forget `ngx.ctx`, and is free after `close`

local function mark()
  return tonumber(cast(address_t, get_request()))
end

-- All that is known of most calls has its place from the start: a table that grows costs more than the rest of its making. These are 32 at the most,
-- as one more would double its size. Few calls ever have `instead`, `is_relayed`, `label`, `problem`, `refusal`, `replacement`, `since`, `timings`
-- or `woken`.
local function new(fields, held)
  local request_id, now = request_ids.draw(), ngx.now()
  local path, query = paths.split(ngx.var.request_uri)
  scheme = scheme or ngx.var.scheme
  return {
    fields = fields, held = held or false, method = ngx.req.get_method(), request_id = request_id, scheme = scheme,
    host = fields.host or "", raw_path = path, query = query, prefix = "", credential = fields.authorization or "",
    traceparent = traces.here(fields.traceparent, request_id), checked = now, began = now,
    is_of_model = path:sub(1, #TO_MODEL) == TO_MODEL,
    is_socket = fields.upgrade ~= nil and type(fields.upgrade) == "string" and fields.upgrade:lower() == "websocket",
    known = false, principal = false, ground = false, policy = false, allowance = false, is_proven = false, owner = false, name = false,
    path = false, key = false, route = false, is_counted = false, instance = false, peer = false, is_refused = false, is_whole = false,
  }
end

-- A call with these header fields, of which those are held back from an app; remembered.
function _M.open(fields, held)
  local call = new(fields, held)
  open[mark()] = call
  return call
end

-- The call of this request; nil where it is none of a model.
function _M.current()
  return open[mark()]
end

-- Notes where the call goes.
function _M.direct(call, route)
  if call.instance ~= route.instance then
    counts.direct(call.key, call.instance, route.instance)
    call.instance = route.instance
  end
  call.route, call.peer = route, route.peer
end

-- Forgets the call, and counts it out if it was counted in; gives it back.
function _M.close()
  local here = mark()
  local call = open[here]
  if not call then
    return nil
  end
  open[here] = nil
  if call.is_counted then
    counts.leave(call.key, call.instance, call.route and true or false)
  end
  return call
end

return _M
