-- The usage tap: counts tokens on the answer, in the proxy, where its bytes pass.
--
-- Reads dynamic metadata (names and values: headgate/contract.py)
--   headgate.admission  client_usage, api. Without client_usage nobody was admitted: nothing is done.
--   headgate.request    n: choices for each prompt, a number.
-- Writes dynamic metadata headgate.usage, all of it strings (decimal integers)
--   status              HTTP status of the answer, at its headers; also of one that Envoy gave itself (429, 503).
--   prompt, completion, cached, reasoning
--                       the answer's own numbers; of a running stream the latest, summed over choices.
--   events              events with output, about one token each. Settlement needs them only while no
--                       completion is known, so with running usage they are written at the end alone.
--   first_event_ms      when the first of them passed, Unix time.
--   complete            "1" once the whole answer has passed: with a stream's own last event ([DONE],
--                       message_stop, response.completed ...), with the end of any other body. A stream
--                       without its last event was cut, however cleanly HTTP ended.
--   error               "1": the stream reported an error inside its 200.
-- All of it is written with each chunk, as Envoy never resumes the script after a client's abort.
--
-- Alters only chat and completions streams of clients that asked for less usage than we did: `none`
-- takes out every usage, `final` all but the last event's. Such a stream is held back to the end of each
-- event. Every other byte passes as it came.
--
-- `usage` counts only at its own depth, as an answer may echo a tool schema that holds one too. The depth
-- of a member is how many brackets close after it, so that the text before it is never parsed: inside a
-- string quotes are escaped, thus `"usage"` without a backslash before it is always a whole string.
--
-- Limits: an event over MAX_HELD_BYTES and a compressed answer pass unread. HTTP trailers after a stream
-- that is cut within an event cost the client that piece of an event (vLLM sends no trailers).
-- Envoy's setBytes() also sets content-length on the headers; they are gone by then, if no filter before
-- this one in the filter list holds response headers back.

local byte, concat, find, format, gsub = string.byte, table.concat, string.find, string.format, string.gsub
local floor, lower, match, max, rep, sub = math.floor, string.lower, string.match, math.max, string.rep, string.sub

local MAX_HELD_BYTES = 8 * 1024 * 1024
local QUOTE, COMMA, OPEN_BRACE, OPEN_BRACKET, BACKSLASH = byte('",{[\\', 1, -1)
local USAGE = '"usage"'
local WRITTEN = { "prompt", "completion", "cached", "reasoning", "first_event_ms", "complete", "error" }

-- JSON

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
  while find(json, "^%s", before) do
    before = before - 1
  end
  if byte(json, before) == COMMA then
    return sub(event, 1, before - 1) .. sub(event, last + 1)
  end
  local after = match(json, "^%s*,%s*()", last + 1) or last + 1
  return sub(event, 1, first - 1) .. sub(event, after)
end

-- Usage

local function count(object, key)
  local _, value = find_member(object, key)
  return value and tonumber(match(object, "^%d+", value))
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

-- The last word replaces what was known before; what it does not name stays.
local function set_usage(tap, usage)
  tap.prompt, tap.completion = usage.prompt or tap.prompt, usage.completion or tap.completion
  tap.cached, tap.reasoning = usage.cached or tap.cached, usage.reasoning or tap.reasoning
end

-- Running usage is that of one choice: completions add up over choices, prompts over prompts, each of
-- which has `n` choices in a row. Cached and reasoning tokens come with the last word.
local function add_running(tap, choice_no, usage)
  local prompt_no = tap.api == "completions" and floor(choice_no / tap.n) or 0
  if usage.completion then
    tap.completion = (tap.completion or 0) + usage.completion - (tap.completions[choice_no] or 0)
    tap.completions[choice_no] = usage.completion
  end
  if usage.prompt then
    tap.prompt = (tap.prompt or 0) + usage.prompt - (tap.prompts[prompt_no] or 0)
    tap.prompts[prompt_no] = usage.prompt
  end
end

-- Events: a reader takes one event with its blank line and returns what the client is to see of it.

local function count_event(tap)
  tap.events = tap.events + 1
  tap.first_event_ms = tap.first_event_ms or tap.handle:timestamp()
end

-- The JSON of an event at its own place: all else becomes white space, but a `data:` that begins the event.
local function json_of(event)
  local line_end = find(event, "\n", 1, true) or #event
  if sub(event, 1, 5) == "data:" and line_end >= #event - 1 and not find(event, "\r", 1, true) then
    return event -- one line, as vLLM sends it
  end
  return (gsub(event, "[^\r\n]+", function(line)
    return sub(line, 1, 5) == "data:" and "     " .. sub(line, 6) or rep(" ", #line)
  end))
end

-- Just inside the brace of a chunk's first choice; nothing where it has none.
local function first_choice(json)
  local first, value = find_member(json, '"choices"')
  local root = first and find(json, "{", 1, true)
  if root and (find(json, "[{%[]", root + 1) or first) < first then -- may be below another member
    local choices = outermost(json, '"choices"')
    value = choices and choices.depth == 1 and choices.value
  end
  return value and match(json, "^%[%s*{()", value)
end

-- The chunk that opens a chat choice names the role and has no text yet.
local function opens_choice(json)
  local _, role = find_member(json, '"role"')
  local _, content = find_member(json, '"content"')
  return role and content and byte(json, role) == QUOTE and sub(json, content, content + 1) == '""'
end

-- A chunk with choices carries running usage, one without the last word.
local function read_chunk_usage(tap, event, json, usage, choice)
  if not usage.last then
    local is_extra = tap.wants == "none" and is_null(json, usage.value)
    return is_extra and without(event, json, usage.first, usage.value + 3) or event
  end
  local numbers = read_usage(tap.api, sub(json, usage.value, usage.last))
  if not choice then
    set_usage(tap, numbers)
    return tap.wants == "none" and "" or event
  end
  add_running(tap, tonumber(match(json, '^%s*"index"%s*:%s*(%d+)', choice)) or 0, numbers)
  return tap.alters and without(event, json, usage.first, usage.last) or event
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
  else
    local failure = outermost(json, '"error"')
    tap.error = failure and failure.depth == 1 and not is_null(json, failure.value) and 1 or tap.error
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

local function read_response_event(tap, event)
  local name = event_name(event)
  if sub(name, -6) == ".delta" then
    count_event(tap)
  elseif name == "error" then
    tap.error = 1
  elseif name == "response.completed" or name == "response.incomplete" or name == "response.failed" then
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

-- Bodies: `watch` takes the bytes of a chunk and returns those to pass on, `finish` what was still held.

local function hold(tap, bytes)
  tap.held[#tap.held + 1], tap.held_bytes = bytes, tap.held_bytes + #bytes
  return tap.held_bytes <= MAX_HELD_BYTES
end

local function release(tap)
  local held = concat(tap.held)
  tap.held, tap.held_bytes = {}, 0
  return held
end

-- The last byte of the next blank line, which ends an event; lines may end in LF, CRLF or CR.
local function event_end(tap, text, from)
  local _, last = find(text, "\n\n", from, true)
  if tap.has_cr then
    local _, crlf = find(text, "\n\r\n", from, true)
    local _, cr = find(text, "\r\r", from, true)
    last = math.min(last or math.huge, crlf or math.huge, cr or math.huge)
  end
  return last and last <= #text and last or nil
end

-- Chunks may cut an event anywhere, in its blank line too: `seam` is the end of what is held.
local function watch_stream(tap, bytes)
  local out, start = {}, 1
  tap.has_cr = tap.has_cr or find(bytes, "\r", 1, true)
  local stop = event_end(tap, tap.seam .. bytes, 1)
  stop = stop and stop - #tap.seam
  while stop do
    hold(tap, sub(bytes, start, stop))
    out[#out + 1] = tap.passes and release(tap) or tap.read_event(tap, release(tap))
    tap.passes, tap.seam, start = false, "", stop + 1
    stop = event_end(tap, bytes, start)
  end
  local rest = sub(bytes, start)
  tap.seam = sub(tap.seam .. rest, -2)
  if rest ~= "" and not hold(tap, rest) or tap.passes then
    tap.passes = true
    out[#out + 1] = release(tap)
  end
  return concat(out)
end

local function finish_stream(tap)
  return tap.held_bytes > 0 and tap.read_event(tap, release(tap)) or ""
end

-- Keeps the answer from the byte before its first `"usage"` on; what grows too long is dropped, to begin at a later one.
local function watch_json(tap, bytes)
  if tap.held_bytes > 0 then
    tap.seam = hold(tap, bytes) and "" or sub(release(tap), -#USAGE)
    return bytes
  end
  local text = tap.seam .. bytes
  local first = find(text, USAGE, 1, true)
  tap.seam = sub(text, -#USAGE)
  if first then
    hold(tap, sub(text, max(first - 1, 1)))
  end
  return bytes
end

local function finish_json(tap)
  local text = release(tap)
  local usage = outermost(text, USAGE)
  if usage and usage.depth == 1 and usage.last then
    set_usage(tap, read_usage(tap.api, sub(text, usage.value, usage.last)))
  end
  if tap.api == "embeddings" and tap.prompt then
    tap.completion = tap.completion or 0
  end
  tap.complete = 1
  return ""
end

local function pass(_, bytes)
  return bytes
end

local function finish_unread(tap)
  tap.complete = 1
  return ""
end

-- The answer

local function write(tap, key, value)
  if value and tap.written[key] ~= value then
    tap.written[key] = value
    tap.handle:streamInfo():dynamicMetadata():set("headgate.usage", key, format("%.0f", value))
  end
end

local function write_changes(tap, at_end)
  for i = 1, #WRITTEN do
    write(tap, WRITTEN[i], tap[WRITTEN[i]])
  end
  if at_end or not tap.completion then
    write(tap, "events", tap.events)
  end
end

local function new_tap(handle, admission)
  local request = handle:streamInfo():dynamicMetadata():get("headgate.request")
  local tap = {
    handle = handle, api = admission.api, wants = admission.client_usage,
    n = max(1, request and tonumber(request.n) or 1),
    events = 0, completions = {}, prompts = {}, written = {},
    held = {}, held_bytes = 0, seam = "",
    read_event = EVENT_READERS[admission.api], watch = pass, finish = finish_unread,
  }
  local headers = handle:headers()
  local kind = lower(headers:get("content-type") or "")
  if headers:get("content-encoding") then
    return tap
  elseif tap.read_event and find(kind, "text/event-stream", 1, true) == 1 then
    tap.watch, tap.finish = watch_stream, finish_stream
    tap.alters = tap.read_event == read_chunk and (tap.wants == "none" or tap.wants == "final")
  elseif find(kind, "application/json", 1, true) == 1 then
    tap.watch, tap.finish = watch_json, finish_json
  end
  return tap
end

function envoy_on_response(handle)
  local admission = handle:streamInfo():dynamicMetadata():get("headgate.admission")
  if not admission or not admission.client_usage then
    return
  end
  local tap = new_tap(handle, admission)
  write(tap, "status", tonumber(handle:headers():get(":status")))
  if tap.alters then
    handle:headers():remove("content-length")
  end
  local last, passed
  for chunk in handle:bodyChunks() do
    local bytes = chunk:getBytes(0, chunk:length())
    last, passed = chunk, tap.watch(tap, bytes)
    if tap.alters and passed ~= bytes then
      chunk:setBytes(passed)
    end
    write_changes(tap, false)
  end
  local rest = tap.finish(tap)
  write_changes(tap, true)
  if tap.alters and rest ~= "" then
    last:setBytes(passed .. rest)
  end
end
