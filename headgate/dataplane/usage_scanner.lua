-- The usage scanner: finds members of a JSON text and reads the numbers of a usage object. Pure functions.
--
-- `usage` counts only at its own depth, as an answer may echo a tool schema that holds one too. The depth
-- of a member is how many brackets close after it, so that the text before it is never parsed: inside a
-- string quotes are escaped, thus `"usage"` without a backslash before it is always a whole string.

local byte, find, match, sub = string.byte, string.find, string.match, string.sub

local QUOTE, COMMA, OPEN_BRACE, OPEN_BRACKET, BACKSLASH = byte('",{[\\', 1, -1)
local USAGE, DURATION = '"usage"', '"duration"'

-- Where the next member `key` (with its quotes) begins, and where its value does; nothing if nowhere.
local function find_member(text, key)
  local first, last = find(text, key, 1, true)
  while first do
    local value = match(text, "^%s*:%s*()", last + 1)
    if value and byte(text, first - 1) ~= BACKSLASH then
      return first, value
    end
    first, last = find(text, key, last + 1, true)
  end
end

-- The quote that closes the string opened at `at`: it has an even number of backslashes before it.
local function string_end(text, at)
  repeat
    at = find(text, '"', at + 1, true)
    local before = at and at - 1
    while before and byte(text, before) == BACKSLASH do
      before = before - 1
    end
  until not at or (at - before) % 2 == 1
  return at
end

-- The outermost member `key` of a JSON text whose beginning may be missing: its `first` byte, where its
-- `value` begins, the `last` byte of a value that is an object, its `depth` (1: a member of the root).
-- Nothing where there is none, or where the text ends within a string.
local function outermost(text, key)
  local at = find_member(text, key)
  local depth, member = 0, nil
  while at do
    local char = byte(text, at)
    if char == QUOTE then
      local first, last = at, string_end(text, at)
      if not last then
        return nil
      end
      if (not member or depth <= member.depth) and last - first + 1 == #key and sub(text, first, last) == key then
        local value = match(text, "^%s*:%s*()", last + 1)
        local is_object = value and byte(text, value) == OPEN_BRACE
        member = value and { first = first, value = value, is_object = is_object, depth = depth } or member
      end
      at = last
    elseif char == OPEN_BRACE or char == OPEN_BRACKET then
      depth = depth + 1
    else
      depth = depth - 1
      if member and member.is_object and depth == member.depth then
        member.last = member.last or at
      end
    end
    at = find(text, '["{}%[%]]', at + 1)
  end
  if member then
    member.depth = member.depth - depth
  end
  return member
end

local function is_null(json, at)
  return sub(json, at, at + 3) == "null"
end

-- `event` without the member from `first` to `last` and the comma that joined it; `json` is its json_of().
local function without(event, json, first, last)
  local before = first - 1
  while before > 0 and find(json, "^%s", before) do
    before = before - 1
  end
  if byte(json, before) == COMMA then
    return sub(event, 1, before - 1) .. sub(event, last + 1)
  end
  local after = match(json, "^%s*,%s*()", last + 1) or last + 1
  return sub(event, 1, first - 1) .. sub(event, after)
end

-- What is longer than 15 digits (vLLM cannot mean it) or no whole number is not seen.
local function number(digits)
  return digits and #digits <= 15 and tonumber(digits) or nil
end

local function count(object, key)
  local _, value = find_member(object, key)
  return value and number(match(object, "^(%d+)[%s,}]", value))
end

-- The numbers of one usage object. Anthropic's input_tokens leaves out what the cache read or wrote.
local function read_usage(api, object)
  if api == "messages" then
    local prompt, cached = count(object, '"input_tokens"'), count(object, '"cache_read_input_tokens"')
    local created = count(object, '"cache_creation_input_tokens"')
    prompt = prompt and prompt + (cached or 0) + (created or 0)
    return { prompt = prompt, completion = count(object, '"output_tokens"'), cached = cached }
  end
  return {
    prompt = count(object, '"prompt_tokens"') or count(object, '"input_tokens"'),
    completion = count(object, '"completion_tokens"') or count(object, '"output_tokens"'),
    cached = count(object, '"cached_tokens"'),
    reasoning = count(object, '"reasoning_tokens"'),
  }
end

-- How long the audio of a whole answer was, rounded up: by its usage, else by the `duration` of verbose_json.
local function read_seconds(text, usage)
  if usage and usage.depth == 1 and usage.last then
    return count(sub(text, usage.value, usage.last), '"seconds"')
  end
  local duration = outermost(text, DURATION)
  if not duration or duration.depth ~= 1 then
    return nil
  end
  local whole, fraction = match(text, '^"?(%d+)%.?(%d*)"?[%s,}]', duration.value)
  whole = number(whole)
  return whole and find(fraction, "[1-9]") and whole + 1 or whole
end
