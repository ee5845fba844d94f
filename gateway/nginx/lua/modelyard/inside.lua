-- Questions to our own processes: HTTP/1.1 over the Unix sockets of the data folder, one connection a question.

local cjson = require "cjson"

local _M = {}

local CONNECT_MS = 5000
local MOST_BYTES = 64 * 1024 * 1024

-- Where the processes of this data folder meet.
function _M.folder()
  return os.getenv("MODELYARD_RUN")
end

local function read_head(sock)
  local line = sock:receive("*l")
  local status = line and tonumber(string.match(line, "^HTTP/1%.[01] (%d%d%d)"))
  if not status then
    return nil
  end
  local fields = {}
  while true do
    line = sock:receive("*l")
    if not line then
      return nil
    end
    if line == "" then
      return status, fields
    end
    local name, value = string.match(line, "^([^:]+):%s*(.-)%s*$")
    if name then
      fields[name:lower()] = value
    end
  end
end

local function read_chunks(sock)
  local pieces = {}
  while true do
    local size = tonumber(sock:receive("*l") or "", 16)
    if not size then
      return nil
    end
    if size == 0 then
      sock:receive("*l")
      return table.concat(pieces)
    end
    local piece = sock:receive(size)
    if not piece then
      return nil
    end
    pieces[#pieces + 1] = piece
    sock:receive("*l")
  end
end

local function read_body(sock, fields)
  if (fields["transfer-encoding"] or ""):lower() == "chunked" then
    return read_chunks(sock)
  end
  local length = tonumber(fields["content-length"] or "0")
  if length == 0 then
    return ""
  end
  return length and length <= MOST_BYTES and sock:receive(length) or nil
end

-- Status, body and header fields of the answer; nil and why where there is none: "down" where nobody listens.
function _M.ask(path, method, target, told)
  local sock = ngx.socket.tcp()
  sock:settimeouts(CONNECT_MS, told.timeout_ms, told.timeout_ms)
  if not sock:connect("unix:" .. path) then
    return nil, "down"
  end
  local request = { method .. " " .. target .. " HTTP/1.1", "Connection: close" }
  if not (told.headers and told.headers.Host) then
    request[#request + 1] = "Host: localhost"
  end
  for name, value in pairs(told.headers or {}) do
    request[#request + 1] = name .. ": " .. value
  end
  request[#request + 1] = "Content-Length: " .. #(told.body or "")
  request[#request + 1] = "\r\n" .. (told.body or "")
  local status, fields, answer
  if sock:send(table.concat(request, "\r\n")) then
    status, fields = read_head(sock)
    answer = status and read_body(sock, fields)
  end
  sock:close()
  if not answer then
    return nil, "silent"
  end
  return status, answer, fields
end

-- As `ask`, of JSON: the answer's status and value.
function _M.ask_json(path, method, target, told)
  local status, answer = _M.ask(path, method, target, told)
  if not status then
    return nil, answer
  end
  local read, value = pcall(cjson.decode, answer)
  if not read then
    return nil, "rubbish"
  end
  return status, value
end

return _M
