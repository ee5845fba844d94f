-- The control socket: the runner's routes come in, what was counted goes out, in the very words of `gateway/control.py`.

local cjson = require "cjson"
local counts = require "modelyard.counts"
local measures = require "modelyard.measures"
local routes = require "modelyard.routes"
local trust = require "modelyard.trust"

local _M = {}

local function body()
  ngx.req.read_body()
  local text = ngx.req.get_body_data()
  if not text and ngx.req.get_body_file() then
    local file = assert(io.open(ngx.req.get_body_file(), "rb"))
    text = file:read("*a")
    file:close()
  end
  return cjson.decode(text or "")
end

local function took(taken)
  ngx.status = taken and 204 or 409
  ngx.header["Content-Length"] = not taken and 0 or nil
end

local function tell(told)
  ngx.header.content_type = "application/json"
  ngx.print(cjson.encode(told))
end

local function stats()
  local told = {}
  for _, model_id in ipairs(body().models) do
    told[model_id] = counts.stats(model_id, routes.keys(model_id))
  end
  tell({ stats = told })
end

local function reaching()
  local asked = ngx.req.get_uri_args()
  tell({ calls = counts.calls_to(asked.instance, routes.keys(asked.model)) })
end

-- Whether calls can be answered: who signs tokens is known, and where models run.
local function ready()
  ngx.status = trust.look() and routes.is_told() and 200 or 503
  ngx.header["Content-Length"] = 0
end

local function show_measures()
  ngx.header.content_type = "text/plain; version=0.0.4; charset=utf-8"
  ngx.print(measures.text())
end

local ANSWERS = {
  ["GET /metrics"] = show_measures,
  ["GET /readyz"] = ready,
  ["PUT /routes"] = function()
    took(routes.replace(body()))
    counts.forget_nothing()
  end,
  ["PATCH /routes"] = function() took(routes.change(body())) end,
  ["POST /stats"] = stats,
  ["GET /reaching"] = reaching,
}

function _M.answer()
  ngx.header["modelyard-boot"] = routes.boot()
  local answer = ANSWERS[ngx.req.get_method() .. " " .. ngx.var.uri]
  if not answer then
    return ngx.exit(404)
  end
  local done, problem = pcall(answer)
  if not done then
    ngx.log(ngx.WARN, "the control socket was asked what it cannot do: ", problem)
    ngx.status = 400
    ngx.print(tostring(problem))
  end
end

return _M
