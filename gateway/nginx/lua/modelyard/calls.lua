-- The calls that are on their way through this worker: what is known of each, from its first phase to its last.

local counts = require "modelyard.counts"

local _M = {}

local open = {}
local last = 0

-- Remembers the call. An internal redirect forgets `ngx.ctx`; variables stay.
function _M.open(call)
  last = last + 1
  open[last] = call
  ngx.var.modelyard_call = last
  ngx.ctx.call = call
end

-- The call of this request; nil where it is none of a model.
function _M.current()
  local call = ngx.ctx.call
  if not call then
    call = open[tonumber(ngx.var.modelyard_call or "") or 0]
    ngx.ctx.call = call
  end
  return call
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
  local call = _M.current()
  if not call then
    return nil
  end
  open[tonumber(ngx.var.modelyard_call or "")] = nil
  if call.is_counted then
    counts.leave(call.key, call.instance, call.route ~= nil)
  end
  return call
end

return _M
