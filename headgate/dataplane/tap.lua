-- The usage tap: counts the tokens of the answer in the proxy, while its bytes pass.
--
-- It reads dynamic metadata (names and values: headgate/core/contract.py). The renderer writes before
-- the script which namespace is ADMISSION.
--
-- * ADMISSION: api and client_usage. Without client_usage the request was not admitted,
--   and nothing is done. per_second: the audio has a price per second. Other audio passes unread,
--   and is charged its flat price.
--   served_as: vLLM's name of the model, if it is not the name in model.
-- * headgate.request: n, the number of choices for each prompt.
--
-- It writes dynamic metadata headgate.usage, all of it decimal integers as strings.
--
-- * status: the HTTP status of the answer, or of an error of Envoy's own (429, 503).
-- * seconds: the length of the audio, if the price is per second.
-- * prompt, completion, cached, reasoning: the answer's own numbers. For a stream with running
--   usage the latest ones, added up over the choices.
-- * events: the events with output, about one token each. Settlement needs them only while no
--   completion is known, so with running usage they are written only at the end.
-- * first_event_ms: the Unix time of the first event with output.
-- * ttft_ms: the milliseconds from vLLM's receipt to the first token, if a whole answer tells them.
-- * complete: "1" once the whole answer has passed. A stream is complete with its own last event
--   ([DONE], message_stop, response.completed ...), any other body at its end. A stream without its
--   last event was cut, even if HTTP ended cleanly.
-- * error: "1" if the stream reported an error although its status is 200.
--
-- Changes are written with each chunk, because Envoy never resumes the script after a client's
-- abort.
--
-- It alters only chat and completions streams of clients that asked for less usage than Headgate
-- did. For `none` it removes every usage, for `final` all usage except the last event's. If such a
-- stream had usage only beside choices, it adds that event for `final`. Such a stream is held back
-- to the end of each event. With served_as it also writes the model's name into answers and errors
-- (model_names.lua). Every other byte passes unchanged.
--
-- Limits: an event over MAX_HELD_BYTES and a compressed answer pass unread. HTTP trailers after a
-- stream that is cut within an event cost the client that piece of an event (vLLM sends none).
-- Envoy's setBytes() also sets content-length on the headers. They are already sent, unless a
-- filter before this one in the filter list holds response headers back.
--
-- Envoy runs one source: json_strings.lua, the usage scanner, the member tracker, the usage
-- events, the model names, the usual chunk and this file. On the lean path the request reader comes
-- before all of them, as one filter costs less than two.

local lower = string.lower
local min, huge = math.min, math.huge

local MAX_HELD_BYTES = 8 * 1024 * 1024
local AUDIO = { transcriptions = true, translations = true }
local NO_OUTPUT = { embeddings = true, rerank = true, score = true }
local WRITTEN = { "prompt", "completion", "cached", "reasoning", "seconds", "first_event_ms",
  "ttft_ms", "complete", "error" }

-- Bodies. `watch` takes the bytes of a chunk and returns the bytes to pass on. `finish` returns the
-- bytes that are still held.

local function hold(tap, bytes)
  tap.held[#tap.held + 1], tap.held_bytes = bytes, tap.held_bytes + #bytes
  return tap.held_bytes <= MAX_HELD_BYTES
end

local function release(tap)
  local held = concat(tap.held)
  tap.held, tap.held_bytes = {}, 0
  return held
end

-- The last byte of the next blank line, which ends an event. Lines may end in LF, CRLF or CR.
local function event_end(tap, text, from)
  local _, last = find(text, "\n\n", from, true)
  if tap.has_cr then
    local _, crlf = find(text, "\n\r\n", from, true)
    local _, cr = find(text, "\r\r", from, true)
    last = min(last or huge, crlf or huge, cr or huge)
  end
  return last and last <= #text and last or nil
end

local function read(tap, event)
  local seen = read_usual(tap, event)
  if seen then
    return seen
  end
  seen = tap.read_event(tap, event)
  if not tap.head and tap.read_event == read_chunk then
    learn_head(tap, event)
  end
  if not tap.names then
    return seen
  end
  return tap.error and rename_error(tap.names, seen) or rename_event(tap.names, tap.api, seen)
end

-- A chunk may cut an event anywhere, even in its blank line: `seam` is the end of the held bytes.
local function watch_stream(tap, bytes)
  local usual = tap.held_bytes == 0 and not tap.passes and read_usual(tap, bytes)
  if usual then
    return usual
  end
  local out, start = {}, 1
  tap.has_cr = tap.has_cr or find(bytes, "\r", 1, true)
  local stop = event_end(tap, tap.seam .. bytes, 1)
  stop = stop and stop - #tap.seam
  while stop do
    hold(tap, sub(bytes, start, stop))
    out[#out + 1] = tap.passes and release(tap) or read(tap, release(tap))
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
  return tap.held_bytes > 0 and read(tap, release(tap)) or ""
end

-- A stream of audio at a flat price: only the model's name in it is of interest.
local function finish_flat(tap)
  tap.complete = 1
  return finish_stream(tap)
end

local function pass_event(_, event) return event end

local function watch_json(tap, bytes)
  track(tap.usage, bytes)
  if tap.metrics then
    track(tap.metrics, bytes)
  end
  return tap.renamer and rename_json(tap.renamer, bytes) or bytes
end

local function finish_json(tap)
  local usage, metrics = root_numbers(tap.usage), tap.metrics and root_numbers(tap.metrics)
  if usage then
    set_usage(tap, usage)
  end
  tap.ttft_ms = metrics and metrics.ttft_ms
  if NO_OUTPUT[tap.api] and tap.prompt then
    tap.completion = tap.completion or 0
  end
  tap.complete = 1
  return tap.renamer and rename_json(tap.renamer, "", true) or ""
end

-- Audio with a price per second: its usage has seconds, or verbose_json a `duration`.
local function watch_audio(tap, bytes)
  track(tap.duration, bytes)
  return watch_json(tap, bytes)
end

local function finish_audio(tap)
  local usage, duration = root_numbers(tap.usage), tracked(tap.duration)
  if usage then
    tap.seconds = usage.seconds
  elseif duration and duration.depth == 1 and duration.value then
    tap.seconds = read_duration(duration.value)
  end
  tap.complete = 1
  return ""
end

local function read_audio(object)
  return { seconds = count(object, '"seconds"') }
end

local function read_nothing() end

-- An error is held back until a brace may end it.
local function watch_error(tap, bytes)
  hold(tap, bytes)
  tap.passes = tap.passes or tap.held_bytes > MAX_ERROR_BYTES
  if tap.passes then
    return release(tap)
  end
  return find(bytes, "}%s*$") and rename_error(tap.names, release(tap)) or ""
end

local function finish_error(tap)
  tap.complete = 1
  return tap.passes and "" or rename_error(tap.names, release(tap))
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
  local written = tap.written
  for i = 1, #WRITTEN do
    local key = WRITTEN[i]
    if tap[key] ~= written[key] then
      write(tap, key, tap[key])
    end
  end
  if at_end or not tap.completion then
    write(tap, "events", tap.events)
  end
end

-- The model's names, if vLLM has another. An older service does not tell.
local function names_of(admission)
  local served_as, name = admission.served_as, admission.model
  return served_as and name and { served_as = served_as, name = name } or nil
end

local function new_tap(handle, admission)
  local request = handle:streamInfo():dynamicMetadata():get("headgate.request")
  local tap = {
    handle = handle, api = admission.api, client_usage = admission.client_usage,
    n = max(1, request and tonumber(request.n) or 1),
    events = 0, written = {},
    running = { prompt = {}, completion = {}, cached = {}, reasoning = {} },
    held = {}, held_bytes = 0, seam = "",
    per_second = admission.per_second, names = names_of(admission),
    read_event = EVENT_READERS[admission.api] or admission.per_second and read_chunk,
    watch = pass, finish = finish_unread,
  }
  local headers = handle:headers()
  if admission.model and request and request.model and request.model ~= admission.model then
    headers:replace("x-headgate-model", admission.model) -- what `auto` has chosen
  end
  local kind = lower(headers:get("content-type") or "")
  local is_stream = find(kind, "text/event-stream", 1, true) == 1
  if headers:get("content-encoding") then
    return tap
  elseif tap.names and not find(headers:get(":status"), "^2") then
    if find(kind, "application/json", 1, true) == 1 then
      tap.watch, tap.finish, tap.alters = watch_error, finish_error, true
    end
  elseif AUDIO[tap.api] and not tap.per_second then
    if tap.names and is_stream then
      tap.watch, tap.finish, tap.alters = watch_stream, finish_flat, true
      tap.read_event = pass_event
    end
  elseif tap.read_event and is_stream then
    tap.watch, tap.finish = watch_stream, finish_stream
    local gets_less = tap.client_usage == "none" or tap.client_usage == "final"
    tap.gets_less = tap.read_event == read_chunk and gets_less
    tap.alters = tap.gets_less or tap.names ~= nil
  elseif find(kind, "application/json", 1, true) == 1 then
    tap.watch, tap.finish = watch_json, finish_json
    tap.usage = new_tracker(USAGE, function(object) return read_usage(tap.api, object) end)
    tap.metrics = TELLS_TTFT[tap.api] and new_tracker(METRICS, read_ttft)
    if tap.per_second then
      tap.watch, tap.finish = watch_audio, finish_audio
      tap.usage = new_tracker(USAGE, read_audio)
      tap.duration = new_tracker(DURATION, read_nothing)
    elseif tap.names then
      tap.renamer, tap.alters = new_renamer(tap.names), true
    end
  end
  return tap
end

function envoy_on_response(handle)
  local admission = handle:streamInfo():dynamicMetadata():get(ADMISSION)
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
