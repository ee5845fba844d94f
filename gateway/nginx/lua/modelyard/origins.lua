-- What a request says of where it comes from: its host, its origin and how a browser fetched it (RFC 6454, Fetch Metadata).

local lrucache = require "resty.lrucache"
local problems = require "modelyard.problems"

local _M = {}

local HOST = [[\A(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:@/\s]+))(?::\d{0,5})?\z]]
local names = assert(lrucache.new(1000))

_M.SAFE = { GET = true, HEAD = true, OPTIONS = true }
local OWN_SITE = { ["same-origin"] = true, none = true }
_M.OWN_SITE = OWN_SITE

local function came_twice(fields, name)
  return type(fields[name]) == "table" and name
end

-- The error of a header that decides and came twice; nil where none did.
function _M.doubled(fields)
  local name = came_twice(fields, "host") or came_twice(fields, "authorization") or came_twice(fields, "origin")
    or came_twice(fields, "sec-fetch-site")
  return name and problems.new("misdirected", "header_doubled", "The header " .. name .. " came twice.", "Send it once.") or nil
end

-- The name of a `Host` field, in lower case, without port, brackets and the root's dot; empty where it is none.
function _M.host_name(value)
  value = value or ""
  local name = names:get(value)
  if not name then
    local found = ngx.re.match(value, HOST, "jo")
    name = found and (found[1] or found[2]):lower():gsub("%.$", "") or ""
    names:set(value, name)
  end
  return name
end

-- The origin that the request was sent to, as a page of its own says it.
function _M.own_origin(fields)
  return (ngx.var.scheme .. "://" .. (fields.host or "")):lower()
end

-- Whether a page of another origin sent it.
function _M.is_foreign(fields)
  local site, origin = fields["sec-fetch-site"], fields.origin
  return (site ~= nil and not OWN_SITE[site]) or (origin ~= nil and origin:lower() ~= _M.own_origin(fields))
end

-- Whether a browser fetches it to show it in a window of its own, and not in a frame.
function _M.is_navigation(method, fields)
  return method == "GET" and fields["sec-fetch-mode"] == "navigate" and fields["sec-fetch-dest"] == "document"
end

return _M
