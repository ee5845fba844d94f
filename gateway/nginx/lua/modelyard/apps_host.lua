-- Models' own hosts (`modelyard/web/apps_gate.py`): a ticket becomes a cookie there, and the cookie counts for the pages of that
-- host alone.

local cjson = require "cjson"
local cookies = require "modelyard.cookies"
local credentials = require "modelyard.credentials"
local inside = require "modelyard.inside"
local limits = require "modelyard.limits"
local origins = require "modelyard.origins"
local paths = require "modelyard.paths"
local problems = require "modelyard.problems"
local refuse = require "modelyard.refusing".refuse
local routes = require "modelyard.routes"
local services = require "modelyard.services"
local trust = require "modelyard.trust"

local _M = {}

local COOKIE = "__Host-modelyard-app"
local COOKIE_S = 12 * 3600
local OURS, ENTER = "/.modelyard/", "/.modelyard/enter"
local LABEL = [[\A[a-z0-9-]{1,33}\z]]
local TICKET = [[\A[A-Za-z0-9._~-]{1,512}\z]]
local PAGE = "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>%s</title><h1>%s</h1><p>%s</p>%s"
local ESCAPES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#x27;" }
local WITHIN_MS = 5000
local OK = 200

local function escape(text)
  return (text:gsub("[&<>\"']", ESCAPES))
end

local function answer(call, status, told, page)
  call.is_refused = true
  page = page or ""
  ngx.status = status
  local header = ngx.header
  header.content_type = "text/html; charset=utf-8"
  header["Content-Security-Policy"] = "default-src 'none'"
  header["X-Content-Type-Options"] = "nosniff"
  header["Cache-Control"] = "no-store"
  header["Referrer-Policy"] = "no-referrer"
  header["X-Request-Id"] = call.request_id
  header["Content-Length"] = #page
  if call.policy then
    header["RateLimit-Policy"], header["RateLimit"] = call.policy, call.allowance
  end
  for name, value in pairs(told) do
    header[name] = value
  end
  ngx.print(page)
  return ngx.exit(ngx.HTTP_OK)
end

local function page_of(title, text, link)
  return string.format(PAGE, title, title, text, link or "")
end

-- Where a browser gets a ticket for this host.
local function way_back(call)
  local port = (call.fields.host or ""):match(":%d*$") or ""
  return call.scheme .. "://" .. trust.rules.console .. port .. "/open/" .. call.label
end

-- Counts the call against who makes it, or their address; the error of a call too many.
local function count(call, principal)
  if call.policy then
    return nil
  end
  local problem
  call.policy, call.allowance, problem = limits.count(call, principal)
  return problem
end

-- Whether the cookie counts: hosts of other models are the same site to a browser, and send it along.
local function counts(call)
  local fields = call.fields
  if call.is_socket then
    return (fields.origin or ""):lower() == origins.own_origin(fields)
  end
  return origins.OWN_SITE[fields["sec-fetch-site"]] or origins.is_navigation(call.method, fields)
end

local function identify(call, model_id)
  local value = counts(call) and cookies.value(call.fields.cookie or {}, COOKIE)
  local known, problem
  if value and model_id ~= "" then
    known, problem = credentials.by_app_cookie(value, model_id)
  end
  return known, problem or count(call, known and known.principal)
end

-- What a browser that shows a page is answered in the place of an error; nil where it is told the error.
local function instead(call, problem)
  if not origins.is_navigation(call.method, call.fields) then
    return nil
  end
  if problem.kind == "unauthenticated" then
    answer(call, 303, { Location = way_back(call), ["Content-Type"] = nil })
    return true
  elseif problem.kind == "not_ready" then
    local pause = problem.retry_after_s or 1
    local page = page_of("The model is starting", escape(problem.message .. " This page asks again."))
    answer(call, 503, { Refresh = pause, ["Retry-After"] = pause }, page)
    return true
  end
end

local function take(call, ticket)
  if type(ticket) == "table" then
    ticket = ticket[1]
  end
  if type(ticket) ~= "string" or not ngx.re.find(ticket, TICKET, "jo") then
    return cjson.null
  end
  local body = cjson.encode({ ticket = ticket, label = call.label, address = ngx.var.remote_addr })
  for _, path in ipairs(services.live("auth")) do
    local status, told = inside.ask_json(path, "POST", "/.inside/enter",
      { timeout_ms = WITHIN_MS, body = body, headers = { ["Content-Type"] = "application/json" } })
    if status == OK then
      return told.cookie
    end
  end
  return nil
end

local function answer_ours(call)
  if call.raw_path ~= ENTER or call.method ~= "GET" then
    return refuse(problems.not_found())
  end
  local problem = count(call, nil)
  if not problem and call.fields["sec-fetch-mode"] and not origins.is_navigation(call.method, call.fields) then
    problem = problems.cross_site() -- else a page of another host could sign a browser in here behind its user's back
  end
  if problem then
    return refuse(problem)
  end
  local cookie = take(call, ngx.req.get_uri_args().ticket)
  if not cookie then
    return refuse(problems.service_down("auth"))
  elseif cookie == cjson.null then
    local link = "<p><a href='" .. escape(way_back(call)) .. "'>Open the model again</a></p>"
    return answer(call, 401, {}, page_of("This link was used", "It opens a model's pages once, within half a minute.", link))
  end
  local kept = string.format("%s=%s; Max-Age=%d; Path=/; Secure; HttpOnly; SameSite=Lax", COOKIE, cookie, COOKIE_S)
  return answer(call, 303, { Location = "/", ["Set-Cookie"] = kept })
end

local function foreign(call)
  local fields = call.fields
  if call.is_socket then
    -- Also for a public model, where the app may have signed a browser in by cookies of its own.
    return fields.origin and fields.origin:lower() ~= origins.own_origin(fields) and problems.no_credential()
  end
  return not origins.SAFE[call.method] and origins.is_foreign(fields) and problems.cross_site()
end

-- Answers one call of a model's own host; `let_in` carries it to the model.
function _M.pass(call, label, let_in)
  if not ngx.re.find(label, LABEL, "jo") then
    return refuse(problems.not_found())
  end
  call.label, call.owner, call.name, call.key, call.path = label, "", label, routes.by_label(label), call.raw_path
  local problem = limits.before(call)
  if problem then
    return refuse(problem)
  end
  if call.raw_path:sub(1, #OURS) == OURS then
    return answer_ours(call)
  end
  call.is_of_model = true
  call.instead = instead
  problem = foreign(call)
  if not problem and paths.is_refused(call.raw_path) then
    problem = problems.path_refused()
  elseif not problem and not paths.is_free(call.raw_path) then
    problem = problems.not_found()
  end
  if problem then
    count(call, nil)
    return refuse(problem)
  end
  return let_in(call, identify)
end

return _M
