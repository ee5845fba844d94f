-- Models' own hosts.

local problems = require "modelyard.problems"
local refusing = require "modelyard.refusing"

local _M = {}

function _M.pass()
  return refusing.refuse(problems.not_found())
end

function _M.refuse(_, problem)
  return refusing.refuse(problem)
end

return _M
