-- The string checker: finds the end of a string in JSON text, strictly. It needs json_strings.lua.
--
-- Most bytes are passed eight at a time, as two words of Lua's ffi. A word of 32 bits is an int to
-- LuaJIT, so nothing is allocated, even where nothing is compiled. Without ffi each byte is looked at.

local match = string.match
local band, bor, bxor = bit.band, bit.bor, bit.bxor

local FIRST_HIGH = 128
local DENSE = 16 -- bytes
local SPACES, QUOTES, BACKSLASHES = 0x20202020, 0x22222222, 0x5C5C5C5C -- a word of each
local ONES, HIGH_BITS = 0x01010101, 0x80808080

local has_ffi, ffi = pcall(require, "ffi")
local has_words = has_ffi and ffi.abi("le")
local BYTES = has_words and ffi.typeof("const char *")
local WORDS = has_words and ffi.typeof("const int32_t *")

local PLAIN, ESCAPES = {}, {}
for code = 32, 127 do
  PLAIN[code] = code ~= QUOTE and code ~= BACKSLASH
end
for _, code in ipairs({ byte('"\\/bfnrt', 1, -1) }) do
  ESCAPES[code] = true
end

-- The lowest and the highest second byte of a character that begins with `lead`, and its length.
-- Nothing for a byte that begins no character.
local function utf8_shape(lead)
  if lead >= 0xC2 and lead <= 0xDF then
    return 0x80, 0xBF, 2
  elseif lead >= 0xE0 and lead <= 0xEF then
    return lead == 0xE0 and 0xA0 or 0x80, lead == 0xED and 0x9F or 0xBF, 3
  elseif lead >= 0xF0 and lead <= 0xF4 then
    return lead == 0xF0 and 0x90 or 0x80, lead == 0xF4 and 0x8F or 0xBF, 4
  end
end

-- The byte behind the character at `at`; nothing if it is not UTF-8.
local function utf8_end(text, at, lead)
  local low, high, length = utf8_shape(lead)
  local second = byte(text, at + 1)
  if not low or not second or second < low or second > high then
    return nil
  end
  for place = at + 2, at + length - 1 do
    local following = byte(text, place)
    if not following or following < 0x80 or following > 0xBF then
      return nil
    end
  end
  return at + length
end

-- The byte behind the escape at `at`, or nothing and the fault.
local function escape_end(text, at)
  if ESCAPES[byte(text, at + 1)] then
    return at + 2
  end
  local code = match(text, "^u(%x%x%x%x)", at + 1)
  local unit = code and tonumber(code, 16)
  if not unit then
    return nil, "escape"
  elseif unit < 0xD800 or unit > 0xDFFF then
    return at + 6
  end
  local low = unit < 0xDC00 and match(text, "^\\u[dD][c-fC-F]%x%x()", at + 6)
  if not low then
    return nil, "surrogate"
  end
  return low
end

-- Sets the high bit of a byte of `word` where a string has no plain ASCII. Only the lowest such bit is
-- exact, as a borrow may reach the bytes above it. So a word without any is plain.
local function odd_bits(word)
  return bor(word, word - SPACES, bxor(word, QUOTES) - ONES, bxor(word, BACKSLASHES) - ONES)
end

-- The words of the text that is read: from its first byte on, from its second, third and fourth.
local lanes, last_word = {}, 0

-- Names the text that `check_string` is asked about next.
local function begin_strings(text)
  if has_words then
    local bytes = ffi.cast(BYTES, text)
    for lane = 0, 3 do
      lanes[lane] = ffi.cast(WORDS, bytes + lane)
    end
    last_word = #text - 7
  end
end

-- The place behind the plain ASCII from `at`, or up to seven bytes before it.
local function plain_end(at)
  local lane = (at - 1) % 4
  local words, word = lanes[lane], (at - 1 - lane) / 4
  local first, behind = word, (last_word - 1 - lane) / 4
  while word <= behind
    and band(bor(odd_bits(words[word]), odd_bits(words[word + 1])), HIGH_BITS) == 0 do
    word = word + 2
  end
  return at + (word - first) * 4
end

-- The quote that closes the string opened at `at`, or nothing, the fault and its place.
local function check_string(text, at)
  local is_dense = false -- the last stretch of plain bytes was too short for words
  at = at + 1
  while true do
    local from = at
    if not is_dense then
      at = plain_end(at)
    end
    local code = byte(text, at)
    while PLAIN[code] do
      at = at + 1
      code = byte(text, at)
    end
    if code == QUOTE then
      return at
    elseif not code then
      return nil, "cut", at
    end
    is_dense = at - from < DENSE
    local next_at, fault = nil, "control"
    if code == BACKSLASH then
      next_at, fault = escape_end(text, at)
    elseif code >= FIRST_HIGH then
      next_at, fault = utf8_end(text, at, code), "utf8"
    end
    if not next_at then
      return nil, fault, at
    end
    at = next_at
  end
end
