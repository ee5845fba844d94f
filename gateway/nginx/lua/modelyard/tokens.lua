-- Verifies access tokens: JWTs signed with ES256 by one of our own keys, and nothing else (RFC 7519, RFC 8725, RFC 9068).
-- What is good and what is not is decided as `modelyard/web/tokens.py` does; one corpus of attacks is shown to both.

local json = require "modelyard.strict_json"
local pkey, digest = require "openssl.pkey", require "openssl.digest"
local base64 = require "ngx.base64"

local _M = {}

_M.API, _M.APP_HOST = "modelyard", "modelyard-app"
_M.LEEWAY_S = 60
_M.LONGEST = 4096

local LONGEST_LIFE_S = { [_M.API] = 3600 + _M.LEEWAY_S, [_M.APP_HOST] = 86400 }
local ID = [[\A[0-9A-Za-z_-]{1,64}\z]]
local NAME = [[\A[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\z]]
local SCOPES = [[\A(?:[!#-\[\]-~]+(?: [!#-\[\]-~]+)*)?\z]] -- RFC 6749, 3.3
local ROLES = { admin = true, member = true, viewer = true }
local JWK = { kty = "EC", crv = "P-256", alg = "ES256", use = "sig" }
local SIGNATURE_BYTES, COORDINATE_BYTES = 64, 32
local TOO_LARGE = 2 ^ 53
-- SubjectPublicKeyInfo of an uncompressed point on P-256, up to the point (RFC 5480).
local SPKI = ngx.decode_base64("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE")
local ORDER = "\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51"
local keys = {}

-- The bytes of a part that is not empty; of the many texts that decode to them, the one without padding and stray bits.
local function decoded(part)
  local bytes = part ~= "" and base64.decode_base64url(part)
  return bytes and base64.encode_base64url(bytes) == part and bytes or nil
end

local function public_key(kid, jwk)
  if type(jwk) ~= "table" or jwk.kid ~= kid then
    return nil
  end
  for name, value in pairs(jwk) do
    if JWK[name] ~= value and name ~= "kid" and name ~= "x" and name ~= "y" then
      return nil
    end
  end
  for name, value in pairs(JWK) do
    if jwk[name] ~= value then
      return nil
    end
  end
  local x, y = type(jwk.x) == "string" and decoded(jwk.x), type(jwk.y) == "string" and decoded(jwk.y)
  if not x or not y or #x ~= COORDINATE_BYTES or #y ~= COORDINATE_BYTES then
    return nil
  end
  local read, key = pcall(pkey.new, SPKI .. x .. y, "DER") -- it refuses a point that is not on the curve
  return read and key or nil
end

-- Trusts these keys and no others; each is a JWK by its `kid`, and one that is not what we write is left out.
function _M.trust(jwks)
  keys = {}
  for kid, jwk in pairs(jwks) do
    keys[kid] = public_key(kid, jwk)
  end
end

-- Whether tokens of this key are good at present.
function _M.trusts(kid)
  return keys[kid] ~= nil
end

local function is_in_range(number)
  return number ~= string.rep("\0", COORDINATE_BYTES) and number < ORDER
end

-- A positive integer as DER has it (X.690, 8.3).
local function der(number)
  number = number:gsub("^%z+", "")
  if number:byte(1) >= 0x80 then
    number = "\0" .. number
  end
  return "\2" .. string.char(#number) .. number
end

-- Both forms of a signature are good, s and n - s, as `modelyard/web/tokens.py` says.
local function is_signed(key, message, raw)
  local r, s = raw:sub(1, COORDINATE_BYTES), raw:sub(COORDINATE_BYTES + 1)
  if not is_in_range(r) or not is_in_range(s) then
    return false
  end
  local body = der(r) .. der(s)
  local asked, good = pcall(key.verify, key, "\48" .. string.char(#body) .. body, digest.new("sha256"):update(message))
  return asked and good == true
end

-- The key's id and the payload, where the form is ours to the letter and the signature is the key's.
local function open(token)
  local header, payload, signature = string.match(token, "^([^.]*)%.([^.]*)%.([^.]*)$")
  if not header then
    return nil
  end
  local told, claims, raw = json.object(decoded(header)), decoded(payload), decoded(signature)
  if not told or not claims or not raw or #raw ~= SIGNATURE_BYTES then
    return nil
  end
  -- Exactly these members: nothing of a header is ever followed, be it jku, jwk, x5u or crit.
  for name in pairs(told) do
    if name ~= "alg" and name ~= "typ" and name ~= "kid" then
      return nil
    end
  end
  local key = type(told.kid) == "string" and keys[told.kid]
  if not key or told.alg ~= "ES256" or told.typ ~= "at+jwt" or not is_signed(key, header .. "." .. payload, raw) then
    return nil
  end
  return told.kid, json.object(claims)
end

local function is_text(value, form)
  return type(value) == "string" and ngx.re.find(value, form, "jo") ~= nil
end

local function is_number(value)
  return type(value) == "number" and value >= 0 and value < TOO_LARGE
end

local function is_alive(told, longest_s, now)
  local issued, begins, ends = told.iat, told.nbf, told.exp
  if not (is_number(issued) and is_number(begins) and is_number(ends)) then
    return false
  end
  local latest = math.max(issued, begins)
  return latest <= now + _M.LEEWAY_S and now < ends + _M.LEEWAY_S and latest < ends and ends <= issued + longest_s
end

local function are_good(told, audience, now)
  local named = is_text(told.name, NAME) and not string.find(told.name, "--", 1, true) and ROLES[told.role]
  local identified = is_text(told.sub, ID) and is_text(told.sid, ID) and is_text(told.jti, ID)
  local whole = json.is_integer(told, "epoch") and is_number(told.epoch)
  local place = audience == _M.APP_HOST and is_text(told.model, ID) or (audience == _M.API and told.model == nil)
  return told.iss == "modelyard" and told.aud == audience and named and identified and whole and place and is_text(told.scope, SCOPES)
    and is_alive(told, LONGEST_LIFE_S[audience], now)
end

-- The claims of a token that is perfectly good, and the key's id; nil for any other text.
function _M.verify(token, audience, now)
  if #token > _M.LONGEST then
    return nil
  end
  local kid, told = open(token)
  if not kid or not told or not are_good(told, audience, now) then
    return nil
  end
  return told, kid
end

return _M
