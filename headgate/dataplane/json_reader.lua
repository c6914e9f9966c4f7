-- The JSON reader: walks a whole JSON text, strictly. It needs json_strings.lua and string_checker.lua.
--
-- It accepts what RFC 8259 does, in UTF-8, at most MAX_DEPTH levels deep, with numbers that a double
-- can hold. So vLLM reads the same values from each text that passes. It decodes nothing: the rules
-- that it is given get the places of values.

local char, gsub, sub = string.char, string.gsub, string.sub

local CLOSE_BRACE, CLOSE_BRACKET, COMMA, COLON, MINUS = byte("}],:-", 1, -1)
local ZERO, NINE = 48, 57
local MAX_DEPTH = 1000
local MAX_DIGITS = 300 -- a number that is not longer, and has no exponent, fits a double
local LITERALS = { [byte("t")] = "true", [byte("f")] = "false", [byte("n")] = "null" }

local SPACE = {}
for _, code in ipairs({ byte(" \t\r\n", 1, -1) }) do
  SPACE[code] = true
end

-- The last byte of the number at `at`, or nothing and the fault.
local function number_end(text, at)
  local first = at
  if byte(text, at) == MINUS then
    at = at + 1
  end
  local code = byte(text, at)
  if not code or code < ZERO or code > NINE then
    return nil, "syntax"
  end
  local leading_zero = code == ZERO
  repeat
    at = at + 1
    code = byte(text, at)
  until leading_zero or not code or code < ZERO or code > NINE
  local plain = at
  if code == 46 or code == 69 or code == 101 then -- a point, E or e
    at = match(text, "^%.%d+()", at) or at
    at = match(text, "^[eE][+-]?%d+()", at) or at
  end
  local risky = at > plain or at - first > MAX_DIGITS
  if risky and math.abs(tonumber(sub(text, first, at - 1))) == math.huge then
    return nil, "number"
  end
  return at - 1
end

-- The last byte of the scalar at `at`, or nothing, the fault and its place.
local function scalar_end(text, at, sign)
  if sign == QUOTE then
    return check_string(text, at)
  elseif LITERALS[sign] then
    local last = at + #LITERALS[sign] - 1
    if sub(text, at, last) == LITERALS[sign] then
      return last
    end
  elseif sign and (sign == MINUS or sign >= ZERO and sign <= NINE) then
    local last, fault = number_end(text, at)
    return last, fault, at
  elseif match(text, "^[NI][an][Nf]", at) then
    return nil, "number", at
  end
  return nil, sign and "syntax" or "cut", at
end

-- The next byte that is not white space, from `at`, and its place.
local function next_sign(text, at)
  local code = byte(text, at)
  while SPACE[code or 0] do
    at = at + 1
    code = byte(text, at)
  end
  return code, at
end

-- A key without its escapes. Only escaped ASCII matters, because every name of interest is ASCII.
local function decoded_key(key)
  if not find(key, "\\", 1, true) then
    return key
  end
  return (gsub(key, "\\u00([0-7]%x)", function(code)
    return char(tonumber(code, 16))
  end))
end

-- The key at `at`, where `sign` is, and the place of its value. Or nothing, the fault and its place.
local function read_key(text, at, sign, spaces)
  if sign ~= QUOTE then
    return nil, sign and "syntax" or "cut", at
  end
  local last, fault, fault_at = check_string(text, at)
  if not last then
    return nil, fault, fault_at
  end
  local colon, colon_at = next_sign(text, last + 1)
  if colon ~= COLON then
    return nil, colon and "syntax" or "cut", colon_at
  end
  local _, value_at = next_sign(text, colon_at + 1)
  return decoded_key(sub(text, at + 1, last - 1)), value_at,
    spaces + colon_at - last - 1 + value_at - colon_at - 1
end

-- Walks the JSON value at `at`, which must end with the text. Returns true, or nothing, the fault
-- and its place.
--
-- * rules.open(parent, key, at, sign, spaces): the frame of a list or object, false for one that
--   matters to no rule. `parent` is the frame around it, nil at the top.
-- * rules.scalar(frame, key, at, last): any other value in a frame.
-- * rules.close(frame, last, spaces): the end of a list or object in a frame.
-- * `spaces` is the number of white space bytes between values so far.
--
-- A frame is a table of the rules. `frame.count` and `frame.first` are set here: the number of its
-- members, and the sign with which its first value begins.
local function walk_json(text, at, rules)
  local depth, spaces = 0, 0
  local objects, frames, keys = {}, {}, {}
  local sign, key, frame
  begin_strings(text)
  sign, at = next_sign(text, at)
  while true do
    local last, fault, fault_at
    if sign == OPEN_BRACE or sign == OPEN_BRACKET then
      depth = depth + 1
      if depth > MAX_DEPTH then
        return nil, "depth", at
      end
      local child = false
      if depth == 1 or frame then
        child = rules.open(frame or nil, key, at, sign, spaces)
      end
      objects[depth], frames[depth], keys[depth] = sign == OPEN_BRACE, child, key
      frame, key = child, nil
      local before = at + 1
      sign, at = next_sign(text, before)
      spaces = spaces + at - before
      if sign == (objects[depth] and CLOSE_BRACE or CLOSE_BRACKET) then
        last = at - 1
      elseif objects[depth] then
        key, at, spaces = read_key(text, at, sign, spaces)
        if not key then
          return nil, at, spaces
        end
        sign = byte(text, at)
      end
      if frame and not last then
        frame.count, frame.first = 1, sign
      end
    else
      last, fault, fault_at = scalar_end(text, at, sign)
      if not last then
        return nil, fault, fault_at
      end
      if frame then
        rules.scalar(frame, key, at, last)
      end
      if depth == 0 then
        return nil, "not_object", at
      end
    end
    -- Behind a value, or in an empty list or object: closes what ends here, up to the next value.
    while last do
      local before = last + 1
      sign, at = next_sign(text, before)
      if depth == 0 then
        if sign then
          return nil, "behind", at
        end
        return true
      end
      spaces = spaces + at - before
      if sign == COMMA then
        before = at + 1
        sign, at = next_sign(text, before)
        spaces = spaces + at - before
        if sign == CLOSE_BRACE or sign == CLOSE_BRACKET then
          return nil, "comma", at
        end
        if objects[depth] then
          key, at, spaces = read_key(text, at, sign, spaces)
          if not key then
            return nil, at, spaces
          end
          sign = byte(text, at)
        end
        if frame then
          frame.count = frame.count + 1
        end
        last = nil
      elseif sign == (objects[depth] and CLOSE_BRACE or CLOSE_BRACKET) then
        if frame then
          rules.close(frame, at, spaces)
        end
        depth = depth - 1
        frame, key, last = frames[depth] or false, nil, at
      else
        return nil, sign and "syntax" or "cut", at
      end
    end
  end
end
