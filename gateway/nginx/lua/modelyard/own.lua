-- What the gateway answers itself: the health of the whole.

local _M = {}

function _M.answer()
  ngx.header.content_type = "application/json"
  ngx.print('{"status": "alive"}')
end

return _M
