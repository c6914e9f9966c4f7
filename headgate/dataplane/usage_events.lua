-- The usage events: reads usage, progress, end and failure from one server-sent event of each API.
--
-- A reader takes a tap (made in tap.lua) and one event with its blank line. It updates the tap, and
-- returns the part of the event for the client. It needs the usage scanner.

local format, gsub = string.format, string.gsub
local floor = math.floor

-- Takes the final usage. A number that it lacks keeps its value.
local function set_usage(tap, usage)
  tap.prompt, tap.completion = usage.prompt or tap.prompt, usage.completion or tap.completion
  tap.cached, tap.reasoning = usage.cached or tap.cached, usage.reasoning or tap.reasoning
end

local function add(tap, key, part_no, number_now)
  if number_now then
    local parts = tap.running[key]
    tap[key] = (tap[key] or 0) + number_now - (parts[part_no] or 0)
    parts[part_no] = number_now
  end
end

-- Adds the running usage of one choice. Completions add up over the choices. Prompts add up over
-- the prompts, each of which has `n` consecutive choices. vLLM reports cached and reasoning tokens
-- only with the final usage. Other servers send that with the last choice.
local function add_running(tap, choice_no, prompt, completion, cached, reasoning)
  local prompt_no = tap.api == "completions" and floor(choice_no / tap.n) or 0
  add(tap, "completion", choice_no, completion)
  add(tap, "reasoning", choice_no, reasoning)
  add(tap, "prompt", prompt_no, prompt)
  add(tap, "cached", prompt_no, cached)
end

local function count_event(tap)
  tap.events = tap.events + 1
  tap.first_event_ms = tap.first_event_ms or tap.handle:timestamp()
end

-- The JSON of an event at its own offset. Everything else becomes white space, except a `data:`
-- that begins the event.
local function json_of(event)
  local line_end = find(event, "\n", 1, true) or #event
  if sub(event, 1, 5) == "data:" and line_end >= #event - 1 and not find(event, "\r", 1, true) then
    return event -- one line, as vLLM sends it
  end
  return (gsub(event, "[^\r\n]+", function(line)
    return sub(line, 1, 5) == "data:" and "     " .. sub(line, 6) or rep(" ", #line)
  end))
end

-- The place behind the brace of a chunk's first choice; nothing if it has no choices.
local function first_choice(json)
  local first, value = find_member(json, '"choices"')
  local root = first and find(json, "{", 1, true)
  if root and (find(json, "[{%[]", root + 1) or first) < first then -- may be below another member
    local choices = outermost(json, '"choices"')
    value = choices and choices.depth == 1 and choices.value
  end
  return value and match(json, "^%[%s*{()", value)
end

-- Whether this chunk opens a chat choice: it has the role and no text yet.
local function opens_choice(json)
  local _, role = find_member(json, '"role"')
  local _, content = find_member(json, '"content"')
  return role and content and byte(json, role) == QUOTE and sub(json, content, content + 1) == '""'
end

local function splice(text, first, last, part)
  return sub(text, 1, first - 1) .. part .. sub(text, last + 1)
end

-- The final usage for a client that asked for it, if the stream had usage only beside choices: the
-- last such chunk without its choices. Of several choices it has the sum.
-- A stream with an error has no final usage without us either.
local function unsent_usage(tap)
  local event = tap.unsent
  if not event or tap.error then
    return ""
  elseif next(tap.running.completion, next(tap.running.completion)) then
    local usage, sum = outermost(json_of(event), USAGE), '{"prompt_tokens":%.0f,"total_tokens":%.0f'
    sum = format(sum, tap.prompt or 0, (tap.prompt or 0) + tap.completion)
    sum = sum .. format(',"completion_tokens":%.0f}', tap.completion)
    event = splice(event, usage.value, usage.last, sum)
  end
  local choices = outermost(json_of(event), '"choices"', OPEN_BRACKET)
  return choices and choices.last and splice(event, choices.value, choices.last, "[]") or ""
end

-- A chunk with choices carries running usage, a chunk without choices the final usage.
local function read_chunk_usage(tap, event, json, usage, choice)
  if not usage.last then
    local is_extra = tap.client_usage == "none" and is_null(json, usage.value)
    return is_extra and without(event, json, usage.first, usage.value + 3) or event
  end
  local numbers = read_usage(tap.api, sub(json, usage.value, usage.last))
  if not choice then
    set_usage(tap, numbers)
    tap.unsent = nil
    return tap.client_usage == "none" and "" or event
  end
  local choice_no = number(match(json, '^%s*"index"%s*:%s*(%d+)', choice)) or 0
  local prompt, completion = numbers.prompt, numbers.completion
  add_running(tap, choice_no, prompt, completion, numbers.cached, numbers.reasoning)
  if tap.client_usage == "final" and numbers.completion then
    tap.unsent = event
  end
  return tap.gets_less and without(event, json, usage.first, usage.last) or event
end

local function read_chunk(tap, event)
  local json = json_of(event)
  local choice = first_choice(json)
  if choice and not opens_choice(json) then
    count_event(tap)
  end
  local usage = outermost(json, USAGE)
  if usage and usage.depth == 1 then
    return read_chunk_usage(tap, event, json, usage, choice)
  elseif match(json, "^%s*%[DONE%]", 6) then
    tap.complete = 1
    return unsent_usage(tap) .. event
  else
    local failure = outermost(json, '"error"')
    local is_error = failure and failure.depth == 1 and not is_null(json, failure.value)
    tap.error = is_error and 1 or tap.error
  end
  return event
end

local function event_name(event)
  return match(event, "^event:%s*([%w_.]+)") or match(event, "[\r\n]event:%s*([%w_.]+)") or ""
end

local function usage_at(tap, event, depth)
  local json = json_of(event)
  local usage = outermost(json, USAGE)
  local is_there = usage and usage.depth == depth and usage.last
  return is_there and read_usage(tap.api, sub(json, usage.value, usage.last)) or {}
end

local LAST_OF_RESPONSE = { ["response.completed"] = true, ["response.incomplete"] = true,
  ["response.failed"] = true }

local function read_response_event(tap, event)
  local name = event_name(event)
  if sub(name, -6) == ".delta" then
    count_event(tap)
  elseif name == "error" then
    tap.error = 1
  elseif LAST_OF_RESPONSE[name] then
    set_usage(tap, usage_at(tap, event, 2))
    tap.complete, tap.error = 1, name == "response.failed" and 1 or tap.error
  end
  return event
end

local function read_message_event(tap, event)
  local name = event_name(event)
  if name == "content_block_delta" then
    count_event(tap)
  elseif name == "message_start" then
    local usage = usage_at(tap, event, 2)
    usage.completion = nil -- nothing is generated yet
    set_usage(tap, usage)
  elseif name == "message_delta" then
    set_usage(tap, usage_at(tap, event, 1))
  elseif name == "message_stop" then
    tap.complete = 1
  elseif name == "error" then
    tap.error = 1
  end
  return event
end

local EVENT_READERS = {
  chat = read_chunk,
  completions = read_chunk,
  responses = read_response_event,
  messages = read_message_event,
}
