-- The usage scanner: finds members of a JSON text and reads the numbers of a usage object. It has
-- only pure functions, and needs json_strings.lua.
--
-- `usage` counts only at its own depth, because an answer may echo a tool schema with a `usage` of
-- its own. The depth of a member is the number of brackets that close after it, so the text before
-- it is never parsed. Quotes inside a string are escaped: `"usage"` without a backslash before it
-- is always a whole string.

local match, sub = string.match, string.sub

local COMMA = byte(",")
local USAGE, DURATION, METRICS = '"usage"', '"duration"', '"metrics"'

-- Where the first member `key` (with its quotes) begins, and where its value does; nothing without
-- one.
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

-- The outermost member `key` of a JSON text whose beginning may be missing. It has its `first`
-- byte, the first byte of its `value`, and its `depth`. A value that is an object (or begins with
-- `opening`) has its `last` byte. The members of the root have the depth 1.
--
-- Nothing if there is none, or if the text ends within a string.
local function outermost(text, key, opening)
  local at = find_member(text, key)
  local depth, member = 0, nil
  while at do
    local char = byte(text, at)
    if char == QUOTE then
      local first, last = at, string_end(text, at)
      if not last then
        return nil
      end
      local fits = (not member or depth <= member.depth) and last - first + 1 == #key
      if fits and sub(text, first, last) == key then
        local value = match(text, "^%s*:%s*()", last + 1)
        if value then
          local is_object = byte(text, value) == (opening or OPEN_BRACE)
          member = { first = first, value = value, is_object = is_object, depth = depth }
        end
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

-- `event` without the member from `first` to `last` and the comma that joined it. `json` is its
-- json_of().
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

-- A whole number of at most 15 digits. Anything else does not count as seen; vLLM sends no longer
-- ones.
local function number(digits)
  return digits and #digits <= 15 and tonumber(digits) or nil
end

local function count(object, key)
  local _, value = find_member(object, key)
  return value and number(match(object, "^(%d+)[%s,}]", value))
end

-- The numbers of one usage object. Anthropic's input_tokens excludes the tokens that the cache read
-- or wrote.
local function read_usage(api, object)
  if api == "messages" then
    local prompt = count(object, '"input_tokens"')
    local cached = count(object, '"cache_read_input_tokens"')
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

-- The length of the audio in the `duration` of verbose_json, in seconds, rounded up. `value` begins
-- with its value.
local function read_duration(value)
  local whole, fraction = match(value, '^"?(%d+)%.?(%d*)"?[%s,}]')
  whole = number(whole)
  return whole and find(fraction, "[1-9]") and whole + 1 or whole
end

-- A number that is not negative, with at most 9 digits before the point.
local function milliseconds(object, key)
  local _, value = find_member(object, key)
  local whole, fraction = match(object, "^(%d+)(%.?%d*)[%s,}]", value or #object)
  return whole and #whole <= 9 and #fraction <= 24 and tonumber(whole .. fraction) or nil
end

local TELLS_TTFT = { chat = true, completions = true, responses = true }

-- vLLM's own time to the first token, in the `metrics` of --enable-per-request-metrics. It begins
-- when the engine takes the request up; the wait in the queue comes before.
local function read_ttft(object)
  local prefill_ms = milliseconds(object, '"time_to_first_token_ms"')
  return { ttft_ms = prefill_ms and prefill_ms + (milliseconds(object, '"queue_time_ms"') or 0) }
end
