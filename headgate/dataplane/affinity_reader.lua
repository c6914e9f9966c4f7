-- The affinity reader: tells which requests belong together for the choice of their pod, without the help of
-- their clients. It comes after the request reader, and needs json_strings.lua. The renderer writes SALT before
-- both.
--
-- It adds to dynamic metadata headgate.request, if the request reader has read a JSON body (names:
-- headgate/core/contract.py):
--
-- * session: the id of a session that an agent sends as a header.
-- * prompt_hash: SHA-256 over the salt and the beginning of the prompt: the system prompt, or else the first
--   message. No text of it leaves the proxy. Not for responses, whose later turns may send no prompt.
--
-- It looks for the prompt by its name alone, in the first bytes of the body. A client that hides the name
-- elsewhere only changes the pod of its own requests.

local bit = require("bit")
local band, bnot, bor, bxor, lshift, ror, rshift, tobit = bit.band, bit.bnot, bit.bor, bit.bxor, bit.lshift,
  bit.ror, bit.rshift, bit.tobit

local match, sub = string.match, string.sub

local SESSION_HEADERS = { "x-session-affinity", "x-claude-code-session-id", "conversation_id", "session_id" }
local SESSION_BYTES = 256
local SEARCHED_BYTES = 64 * 1024
local BEGINNING_BYTES = 512 -- about 128 tokens: eight blocks of vLLM's prefix cache
local PLACES = { '"system"%s*:%s*()', '"messages"%s*:%s*%[%s*()', '"prompt"%s*:%s*()' }

-- The round constants of SHA-256 (FIPS 180-4): from the cube roots of the first 64 primes.
local ROUNDS = {}
for candidate = 2, 311 do
  local is_prime = true
  for divisor = 2, math.floor(math.sqrt(candidate)) do
    is_prime = is_prime and candidate % divisor ~= 0
  end
  if is_prime then
    ROUNDS[#ROUNDS + 1] = tobit(math.floor(candidate ^ (1 / 3) % 1 * 2 ^ 32))
  end
end

-- The message with its padding: a bit, zeros, and the length in bits.
local function padded(message)
  local length = #message
  local bits = string.char(0, 0, 0, 0, band(rshift(length, 21), 255), band(rshift(length, 13), 255),
    band(rshift(length, 5), 255), band(lshift(length, 3), 255))
  return message .. "\128" .. string.rep("\0", (55 - length) % 64) .. bits
end

-- The 64 words of the block that begins at `at`.
local function schedule(message, at, words)
  for i = 0, 15 do
    local a, b, c, d = byte(message, at + i * 4, at + i * 4 + 3)
    words[i + 1] = bor(lshift(a, 24), lshift(b, 16), lshift(c, 8), d)
  end
  for i = 17, 64 do
    local x, y = words[i - 15], words[i - 2]
    local s0 = bxor(ror(x, 7), ror(x, 18), rshift(x, 3))
    local s1 = bxor(ror(y, 17), ror(y, 19), rshift(y, 10))
    words[i] = tobit(words[i - 16] + s0 + words[i - 7] + s1)
  end
end

-- The SHA-256 of a message, in hex.
local function sha256(message)
  local state = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 }
  local words = {}
  message = padded(message)
  for at = 1, #message, 64 do
    schedule(message, at, words)
    local a, b, c, d, e, f, g, h = unpack(state)
    for i = 1, 64 do
      local choice = bxor(band(e, f), band(bnot(e), g))
      local major = bxor(band(a, b), band(a, c), band(b, c))
      local t1 = tobit(h + bxor(ror(e, 6), ror(e, 11), ror(e, 25)) + choice + ROUNDS[i] + words[i])
      local t2 = tobit(bxor(ror(a, 2), ror(a, 13), ror(a, 22)) + major)
      h, g, f, e, d, c, b, a = g, f, e, tobit(d + t1), c, b, a, tobit(t1 + t2)
    end
    for i, value in ipairs({ a, b, c, d, e, f, g, h }) do
      state[i] = tobit(state[i] + value)
    end
  end
  for i = 1, 8 do
    state[i] = bit.tohex(state[i])
  end
  return table.concat(state)
end

-- Where the value that begins at `at` ends, or BEGINNING_BYTES later.
local function end_of_value(text, at)
  local depth, is_string, i, last = 0, false, at, at + BEGINNING_BYTES - 1
  while i <= last do
    local sign = byte(text, i)
    if not sign then
      break
    elseif is_string then
      if sign == BACKSLASH then
        i = i + 1
      elseif sign == QUOTE then
        is_string = false
      end
    elseif sign == QUOTE then
      is_string = true
    elseif sign == OPEN_BRACE or sign == OPEN_BRACKET then
      depth = depth + 1
    elseif sign == 125 or sign == 93 then -- a closing brace or bracket
      depth = depth - 1
    end
    if depth == 0 and not is_string then
      return i
    end
    i = i + 1
  end
  return last
end

-- The beginning of the prompt, as the body has it; nil if there is none.
local function beginning(text)
  for _, place in ipairs(PLACES) do
    local at = match(text, place)
    if at then
      return sub(text, at, end_of_value(text, at))
    end
  end
end

function envoy_on_request(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local request = metadata:get("headgate.request")
  if not request or request.body ~= "read" then
    return
  end
  local body = handle:body()
  metadata = handle:streamInfo():dynamicMetadata() -- fetched again: body() may have waited
  local headers = handle:headers()
  for _, name in ipairs(SESSION_HEADERS) do
    local session = headers:get(name)
    if session then
      metadata:set("headgate.request", "session", sub(session, 1, SESSION_BYTES))
      break
    end
  end
  local text = body:getBytes(0, math.min(body:length(), SEARCHED_BYTES))
  local first = not find(headers:get(":path"), "/v1/responses", 1, true) and beginning(text)
  if first then
    metadata:set("headgate.request", "prompt_hash", sha256(SALT .. first))
  end
end
