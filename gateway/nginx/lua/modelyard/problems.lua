-- Errors as problem documents (RFC 9457), in the words of `modelyard/web/problems.py`.

local cjson = require "cjson"

local _M = {}

local STATUS = {
  malformed = 400, unauthenticated = 401, forbidden = 403, not_found = 404, wrong_method = 405, conflict = 409, too_large = 413,
  wrong_type = 415, misdirected = 421, invalid = 422, limited = 429, internal = 500, bad_answer = 502, unavailable = 503,
  not_ready = 503, too_slow = 504, disk_full = 507,
}
local TITLES = {
  [400] = "Bad request", [401] = "Not signed in", [403] = "Not allowed", [404] = "Not found", [405] = "Method not allowed",
  [409] = "Conflict", [413] = "Too large", [415] = "Unsupported media type", [421] = "Misdirected request", [422] = "Refused",
  [429] = "Too many requests", [500] = "Internal error", [502] = "The model's answer is broken", [503] = "Not ready",
  [504] = "The model is too slow", [507] = "Disk full",
}
-- Whether the body of the request was not read to its end, so that its connection cannot carry another one.
local CLOSES = { too_large = true, unauthenticated = true, misdirected = true, malformed = true }

-- An error: kind, stable code, message, mend; `more` may hold `retry_after_s` and `extra`.
function _M.new(kind, code, message, mend, more)
  more = more or {}
  return { kind = kind, code = code, message = message, mend = mend, retry_after_s = more.retry_after_s, extra = more.extra }
end

-- The error that another process of ours carried over (`modelyard/domain/carried.py`); nil where it is none.
function _M.arrived(told)
  if type(told) ~= "table" or not STATUS[told.kind] or type(told.code) ~= "string" then
    return nil
  end
  local pause = told.retry_after_s
  return {
    kind = told.kind, code = told.code, message = told.message, mend = told.mend,
    retry_after_s = type(pause) == "number" and pause or nil, extra = type(told.extra) == "table" and told.extra or nil,
  }
end

function _M.closes(problem)
  return CLOSES[problem.kind] == true
end

-- The document as text. A 404 carries nothing that tells one request from another.
function _M.encode(problem, path, request_id)
  local status = STATUS[problem.kind]
  local told = {
    type = "urn:modelyard:problem:" .. problem.code, title = TITLES[status], status = status, detail = problem.message,
    code = problem.code, mend = problem.mend,
  }
  if problem.kind ~= "not_found" then
    told.instance, told.request_id = path, request_id
  end
  for name, value in pairs(problem.extra or {}) do
    told[name] = value
  end
  return cjson.encode(told)
end

-- Writes the header fields of the answer; whoever calls it sends the body.
function _M.head(problem)
  ngx.status = STATUS[problem.kind]
  local header = ngx.header
  header.content_type = "application/problem+json"
  header["Cache-Control"] = "no-store"
  header["Content-Security-Policy"] = "default-src 'none'"
  header["X-Content-Type-Options"] = "nosniff"
  if problem.retry_after_s then
    header["Retry-After"] = problem.retry_after_s
  end
  if problem.kind == "unauthenticated" then
    header["WWW-Authenticate"] = 'Bearer realm="modelyard"'
  end
end

function _M.not_found()
  return _M.new("not_found", "not_found", "There is nothing here.", "Check the address, or list what you have with `modelyard list`.")
end

function _M.path_refused()
  return _M.new("malformed", "path_refused",
    "The path holds `//`, `;`, a backslash, a dot segment, or an escape that is broken or stands for `/`, a backslash or NUL.",
    "Send the path in its plain form; put such characters into the query or the body.")
end

function _M.no_credential()
  return _M.new("unauthenticated", "no_credential", "This needs a credential.",
    'Send "Authorization: Bearer $(modelyard token)", or sign in at /login.')
end

function _M.bad_credential()
  return _M.new("unauthenticated", "bad_credential", "This credential is not good.",
    "Send `Authorization: Bearer TOKEN` with the token that `modelyard token` prints.")
end

function _M.credential_ended()
  return _M.new("unauthenticated", "credential_ended", "The credential of this call is not good any more.",
    "Sign in again, or send another key, and call again.")
end

function _M.cross_site()
  return _M.new("forbidden", "cross_site", "A page of another site may not do this.",
    "Use Modelyard's own pages, or send the token without a browser.")
end

function _M.body_too_large(limit)
  return _M.new("too_large", "body_too_large", string.format("The body is larger than %d bytes, this model's limit.", limit),
    "Send less at once, or raise `[limits] max_body` in modelyard.toml.")
end

function _M.instance_gone()
  return _M.new("bad_answer", "instance_gone", "The model's instance ended before it answered.",
    "Call again; if it happens again, look into the model's log.")
end

function _M.no_inlet()
  return _M.new("unavailable", "no_inlet", "This gateway reaches instances through the sockets of their inlets, and this one has none.",
    "Set `runtime` to `docker`, or let a gateway without nginx answer: modelyard serve gateway")
end

function _M.bad_answer(why)
  return _M.new("bad_answer", "bad_answer", "The model's answer is not HTTP as it should be: " .. why .. ".", "Look into the model's log.")
end

function _M.too_slow(timeout_s)
  return _M.new("too_slow", "model_too_slow", string.format("The model was silent for %g s, its time limit.", timeout_s),
    "Call again, or raise `[limits] timeout_s` in modelyard.toml.")
end

function _M.starting()
  return _M.new("unavailable", "starting", "The gateway does not know yet where models run.", "Call again after the pause.",
    { retry_after_s = 1 })
end

function _M.runner_away()
  return _M.new("unavailable", "runner_away", "The part that starts models is not there at the moment.", "Call again after the pause.",
    { retry_after_s = 2 })
end

function _M.service_down(role)
  return _M.new("unavailable", "service_down", "No process of the role " .. role .. " answers.",
    "Start one: modelyard serve " .. role, { retry_after_s = 2 })
end

return _M
