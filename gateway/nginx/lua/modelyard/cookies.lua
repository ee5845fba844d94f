-- Cookies on a model's own host: the app's pass both ways, and the platform's never meet the app (`gateway/cookies.py`).

local _M = {}

local OURS = "__host-modelyard"

local function is_ours(pair)
  return pair:match("^[ \t=]*(.*)$"):lower():sub(1, #OURS) == OURS
end

-- The app's cookies among those that came, as they were written; nil where there are none.
function _M.to_app(values)
  local kept = {}
  for _, value in ipairs(type(values) == "table" and values or { values }) do
    for pair in (value .. ";"):gmatch("([^;]*);") do
      pair = pair:match("^[ \t]*(.-)[ \t]*$")
      if pair ~= "" and not is_ours(pair) then
        kept[#kept + 1] = pair
      end
    end
  end
  return #kept > 0 and table.concat(kept, "; ") or nil
end

-- A `Set-Cookie` of the app without its `Domain`, so that it holds for this host alone; nil where it bears a name of ours.
function _M.to_caller(value)
  local kept = {}
  for part in (value .. ";"):gmatch("([^;]*);") do
    if #kept == 0 then
      if is_ours(part) then
        return nil
      end
      kept[1] = part
    elseif part:match("^([^=]*)"):match("^[ \t]*(.-)[ \t]*$"):lower() ~= "domain" then
      kept[#kept + 1] = part
    end
  end
  return table.concat(kept, ";")
end

-- The value of one cookie; nil also where it came twice: one of them is not ours then.
function _M.value(values, name)
  local found
  for _, each in ipairs(type(values) == "table" and values or { values }) do
    for pair in (each .. ";"):gmatch("([^;]*);") do
      local key, value = pair:match("^%s*(.-)%s*$"):match("^([^=]*)=?(.*)$")
      if key == name then
        if found then
          return nil
        end
        found = value
      end
    end
  end
  return found
end

return _M
