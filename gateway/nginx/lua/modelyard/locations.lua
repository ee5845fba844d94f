-- Location rewriting: no redirect of an app leaves its own paths on the caller's origin (`gateway/locations.py`, rule by rule).

local find, match, sub = string.find, string.match, string.sub

local _M = {}

local PORTS = { http = 80, https = 443 }
local HIGHEST_PORT = 65535
local AUTHORITY = [[\A(?:.*@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{0,5}))?\z]]
local NUMBER = [[\A(?:[0-9]+|0[xX][0-9A-Fa-f]*)\z]]
local OCTETS = [[\A(?:(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(?:\.(?!\z)|\z)){4}\z]]

-- An IPv6 address in its one form (RFC 5952); nil where it is none.
local function ipv6(text)
  local halves = { match(text, "^(.-)::(.*)$") }
  if #halves == 0 then
    halves = { text }
  elseif find(halves[2], "::", 1, true) then
    return nil
  end
  local groups, gap = {}, 0
  for n, half in ipairs(halves) do
    if half ~= "" then
      for group in (half .. ":"):gmatch("([^:]*):") do
        local v4 = { match(group, "^(%d+)%.(%d+)%.(%d+)%.(%d+)$") }
        if #v4 == 4 and ngx.re.find(group, OCTETS, "jo") then
          groups[#groups + 1] = v4[1] * 256 + v4[2]
          groups[#groups + 1] = v4[3] * 256 + v4[4]
        elseif match(group, "^%x%x?%x?%x?$") then
          groups[#groups + 1] = tonumber(group, 16)
        else
          return nil
        end
      end
    end
    if n == 1 and #halves == 2 then
      gap = #groups
    end
  end
  if #halves == 2 then
    if #groups > 7 then
      return nil
    end
    for _ = #groups + 1, 8 do
      table.insert(groups, gap + 1, 0)
    end
  end
  if #groups ~= 8 then
    return nil
  end
  local best, length, at = 0, 1, 1
  while at <= 8 do
    local stop = at
    while stop <= 8 and groups[stop] == 0 do
      stop = stop + 1
    end
    if stop - at > length then
      best, length = at, stop - at
    end
    at = math.max(stop, at) + 1
  end
  local before, after = {}, {}
  for n, group in ipairs(groups) do
    local list = (best == 0 or n < best) and before or (n >= best + length and after or nil)
    if list then
      list[#list + 1] = string.format("%x", group)
    end
  end
  return best == 0 and table.concat(before, ":") or table.concat(before, ":") .. "::" .. table.concat(after, ":")
end

-- Host and port in their one form; nil where clients differ about them (encoded, international or short numeric hosts).
local function origin(scheme, authority)
  local found = ngx.re.match(authority, AUTHORITY, "jos")
  if not found then
    return nil
  end
  local port = found[2] and found[2] ~= "" and tonumber(found[2]) or PORTS[scheme]
  local host = found[1]:lower():gsub("%.+$", "")
  if port > HIGHEST_PORT or host == "" then
    return nil
  end
  if sub(host, 1, 1) == "[" then
    local address = ipv6(sub(host, 2, -2))
    return address and "[" .. address .. "]" or nil, port
  end
  if ngx.re.find(match(host, "([^.]*)$"), NUMBER, "jo") and not ngx.re.find(host, OCTETS, "jo") then
    return nil
  end
  return host, port
end

-- The absolute path with its dot segments resolved, those written `%2e` too, stopping at the root.
local function without_dots(path)
  local segments, parts = {}, {}
  for part in (sub(path, 2) .. "/"):gmatch("([^/]*)/") do
    parts[#parts + 1] = part
  end
  for n, part in ipairs(parts) do
    local plain = part:gsub("%%2[eE]", ".")
    if plain == ".." then
      segments[#segments] = nil
    end
    if plain ~= "." and plain ~= ".." then
      segments[#segments + 1] = part
    elseif n == #parts then
      segments[#segments + 1] = ""
    end
  end
  return "/" .. table.concat(segments, "/")
end

-- A path of the app as a path of the caller's origin.
local function own(path, tail, place)
  local plain = without_dots(path)
  local below = plain == place.prefix or sub(plain, 1, #place.prefix + 1) == place.prefix .. "/"
  return (below and "" or place.prefix) .. plain .. tail
end

-- The rewritten form of `//authority/path`, any number of slashes before the authority, as browsers have it.
local function absolute(scheme, path, tail, place)
  local authority, slash, rest = match(path, "^/+([^/]*)(/?)(.*)$")
  local host, port = origin(scheme, authority)
  if not host then
    return nil
  end
  local here, here_port = origin(place.scheme, place.host)
  local both_usual = (port == 80 or port == 443) and (here_port == 80 or here_port == 443)
  if here and host == here and (port == here_port or both_usual) then
    return own(slash .. rest == "" and "/" or slash .. rest, tail, place)
  end
  local shown = port == PORTS[scheme] and host or host .. ":" .. port
  return scheme .. "://" .. shown .. slash .. rest .. tail
end

local function rewritten(value, place)
  local text = match(value, "^[%z\1-\32]*(.-)[%z\1-\32]*$"):gsub("[\t\r\n]", "")
  text = text:gsub("[\127-\255]", function(char) return string.format("%%%02X", string.byte(char)) end):gsub(" ", "%%20")
  if find(text, "[%z\1-\32\127]") then
    return nil
  end
  local scheme, rest = place.scheme, text
  local named, behind = match(text, "^(%a[%w+.-]*):(.*)$")
  if named then
    scheme, rest = named:lower(), behind
    -- `http:path` is relative to browsers where the schemes agree, and a host where not.
    if not PORTS[scheme] or sub(rest:gsub("\\", "/"), 1, 2) ~= "//" then
      return nil
    end
  end
  local path, query, fragment = match(rest, "^([^?#]*)(%??[^#]*)(#?.*)$")
  path = path:gsub("\\", "/")
  local tail = query .. fragment
  if sub(path, 1, 2) == "//" then
    return absolute(scheme, path, tail, place)
  end
  if path == "" then
    path, tail = place.path, query ~= "" and tail or place.query .. tail
  elseif sub(path, 1, 1) ~= "/" then
    path = match(place.path, "^(.*/)") .. path
  end
  return own(path, tail, place)
end

-- The reference for the caller, `Location` and `Content-Location` alike; nil: remove the header.
-- `place` has scheme, host, prefix (empty on the model's own host), the app's own path of the request, and its query.
function _M.rewrite(value, place)
  local seen = rewritten(value, place)
  return seen and sub(seen, 1, 1) == "/" and place.prefix == "" and value or seen
end

return _M
