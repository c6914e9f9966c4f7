-- The usual chunk: reads a chunk of chat or completions in vLLM's own shape, at a small part of the
-- cost. It needs the model names.
--
-- The chunks of a stream begin alike, up to the number of their choice, and end with their running
-- usage. A chunk is read here only if the first `"usage"` in it begins this end. For such bytes the
-- reader of all chunks, read_chunk(), finds the same numbers, whatever is in between.

local CHOICES = '"choices":[{"index":'
local USUAL_HEAD = '^(data: {[^{}%[%]\\\r\n]*"choices":%[{"index":)%d,'
local USUAL_END =
  '^"usage":{"prompt_tokens":(%d+),"total_tokens":%d+,"completion_tokens":(%d+)}}\n\n$'
local ZERO, NINE = byte("09", 1, 2)

-- Remembers how the chunks of this stream begin, and what the client gets of that.
local function learn_head(tap, event)
  local head = match(event, USUAL_HEAD)
  local is_clear = head and find(head, '"choices"', 1, true) == #head - #CHOICES + 1
    and not find(head, USAGE, 1, true) and not find(head, '"role"', 1, true)
  if is_clear and (not tap.names or find_member(head, MODEL)) then
    tap.head = head
    tap.seen_head = tap.names and rename_event(tap.names, tap.api, head) or head
  end
end

-- The prompt and the completion of an event whose head ends before `from`. Then the number of its
-- choice, and the byte at which its usage begins. Nothing if the event is not usual.
local function usual_numbers(event, from)
  local digit, comma = byte(event, from, from + 1)
  local usage = find(event, USAGE, from, true)
  if not usage or comma ~= COMMA or digit < ZERO or digit > NINE
    or byte(event, usage - 1) ~= COMMA or find(event, "\n", from, true) ~= #event - 1
    or find(event, "\r", from, true) or find(event, '"role"', from, true) then
    return nil
  end
  local prompt, completion = match(event, USUAL_END, usage)
  prompt, completion = number(prompt), number(completion)
  if prompt and completion then
    return prompt, completion, digit - ZERO, usage
  end
end

-- The part of a usual chunk for the client; nothing if the chunk is not usual.
local function read_usual(tap, event)
  local head = tap.head
  if not head or tap.error or find(event, head, 1, true) ~= 1 then
    return nil
  end
  local prompt, completion, choice_no, usage = usual_numbers(event, #head + 1)
  if not prompt then
    return nil
  end
  count_event(tap)
  add_running(tap, choice_no, prompt, completion)
  if tap.client_usage == "final" then
    tap.unsent = event
  end
  if tap.gets_less then
    return tap.seen_head .. sub(event, #head + 1, usage - 2) .. "}\n\n"
  end
  return tap.names and tap.seen_head .. sub(event, #head + 1) or event
end
