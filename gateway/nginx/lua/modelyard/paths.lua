-- Path rules: which request paths reach an app, and as what. The rules are those of `gateway/paths.py`, to the letter.

local lrucache = require "resty.lrucache"

local find, match, sub = string.find, string.match, string.sub
local re_find = ngx.re.find

local _M = {}

local REFUSED = [[//|[\\;?#\x00-\x20\x7f]|%(?![0-9A-Fa-f]{2})|%(?:2[fF]|5[cC]|00)|/(?:\.|%2[eE]){1,2}(?:/|\z)]]
local NAME = [[\A[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\z]]

-- Whether the text is a username or a model name.
function _M.is_name(text)
  return not find(text, "--", 1, true) and re_find(text, NAME, "jo") ~= nil
end

-- The path and the query (with its `?`, or empty) of a request target as it was sent; a fragment is no part of one (RFC 9112, 3.2).
function _M.split(target)
  local fragment = find(target, "#", 1, true)
  if fragment then
    target = sub(target, 1, fragment - 1)
  end
  local mark = find(target, "?", 1, true)
  if mark then
    return sub(target, 1, mark - 1), mark < #target and sub(target, mark) or ""
  end
  return target, ""
end

-- Whether two servers might read the path differently; what they might is refused, never repaired.
function _M.is_refused(path)
  return sub(path, 1, 1) ~= "/" or re_find(path, REFUSED, "jo") ~= nil
end

-- Whether the path lies below `/.modelyard/`, however that is written: there the platform alone answers.
local function is_ours(path)
  local first = match(path, "^/([^/]*)")
  return first ~= nil and ngx.unescape_uri((first:gsub("%+", "%%2B"))):lower() == ".modelyard"
end

-- Owner, name, prefix and the app's own path of a path below `/m/`; nil where it names no model.
function _M.parse(path)
  local owner, name, rest = match(path, "^/m/([^/]+)/([^/]+)(.*)$")
  if not owner or not _M.is_name(owner) or not _M.is_name(name) then
    return nil
  end
  if rest == "" then
    rest = "/"
  elseif is_ours(rest) then
    return nil
  end
  return owner, name, "/m/" .. owner .. "/" .. name, rest
end

-- Whether the path of a model's own host is the app's.
function _M.is_free(path)
  return not is_ours(path)
end

local seen = assert(lrucache.new(2000))

-- What a path below `/m/` is, remembered: `is_refused`, or `owner`, `name`, `prefix` and `path`, all nil where it names no model.
function _M.read(path)
  local told = seen:get(path)
  if not told then
    told = { is_refused = _M.is_refused(path) }
    if not told.is_refused then
      told.owner, told.name, told.prefix, told.path = _M.parse(path)
    end
    seen:set(path, told)
  end
  return told
end

return _M
