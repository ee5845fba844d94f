-- The live processes of each role, found by the sockets in the data folder; and whose a path is (`gateway/ownership.py`).

local ffi = require "ffi"
local inside = require "modelyard.inside"

ffi.cdef [[
  typedef struct __dirstream modelyard_dir;
  struct modelyard_dirent { uint64_t inode; int64_t offset; unsigned short length; unsigned char type; char name[256]; };
  modelyard_dir *opendir(const char *name);
  struct modelyard_dirent *readdir(modelyard_dir *dir);
  int closedir(modelyard_dir *dir);
]]

local _M = {}

local SERVING = ".sock"
local CONNECT_MS = 5000
local turns = 0
local OWNED = {
  { "auth", [[\A(?:/auth/.*|/(?:login|signup|logout)|/account(?:/.*)?|/first(?:/.*)?|/open/.*|/\.well-known/jwks\.json)\z]] },
  { "inference", [[\A/models/[^/]+/[^/]+/logs\z]] },
  -- Beside what is its own, the upload role answers for what is nobody's: it says to whom that there is nothing.
  { "upload", [[\A.*\z]] },
}

-- The sockets of the role's processes, of those that answer calls; or those whose names end otherwise.
function _M.live(role, ending)
  local folder, found = inside.folder(), {}
  local dir = ffi.C.opendir(folder)
  if dir == nil then
    return found
  end
  ending = ending or SERVING
  while true do
    local entry = ffi.C.readdir(dir)
    if entry == nil then
      break
    end
    local name = ffi.string(entry.name)
    if name:sub(1, #role + 1) == role .. "-" and name:sub(-#ending) == ending then
      found[#found + 1] = folder .. "/" .. name
    end
  end
  ffi.C.closedir(dir)
  table.sort(found)
  return found
end

-- The role that answers this path, decoded.
function _M.owner_of(path)
  for _, each in ipairs(OWNED) do
    if ngx.re.find(path, each[2], "jos") then
      return each[1]
    end
  end
end

-- The socket of one of the role's processes, the next one in turn that takes connections; nil where there is none.
function _M.next_of(role)
  local found = _M.live(role)
  turns = turns + 1
  for n = 1, #found do
    local path = found[(turns + n) % #found + 1]
    local sock = ngx.socket.tcp()
    sock:settimeout(CONNECT_MS)
    if sock:connect("unix:" .. path) then
      sock:close()
      return path
    end
  end
  return nil
end

return _M
