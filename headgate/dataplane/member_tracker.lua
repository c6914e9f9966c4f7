-- The member tracker: finds the outermost member of a JSON text that passes in chunks of any size.
--
-- Like outermost() in the usage scanner, but it holds no text. The depth of a member is known only
-- from the brackets after it, so they are counted until the text ends. At the brace that closes a
-- member's object its numbers are read, and its bytes are dropped. It needs the usage scanner.

local concat, max, rep = table.concat, math.max, string.rep

local MAX_OBJECT_BYTES = 64 * 1024 -- a longer usage object is not read; vLLM's has some 200 bytes
local VALUE_BYTES = 64 -- as much of a value that is not an object is kept

-- A tracker for the member `key` (with its quotes). `read` takes the text of an object.
local function new_tracker(key, read)
  return { key = key, read = read, rest = "", depth = 0 }
end

-- A string that the text cuts, from its quote on. Of a long one only the part is kept that decides
-- where it ends, and that it is not the key.
local function cut_string(tracker, text, at)
  local cut, member = sub(text, at), tracker.member
  if member and member.is_open and #cut > MAX_OBJECT_BYTES then
    member.is_too_long = true
  elseif #cut <= #tracker.key or member and member.is_open then
    return cut
  end
  local before = #cut
  while byte(cut, before) == BACKSLASH do
    before = before - 1
  end
  return '"' .. rep("x", #tracker.key) .. ((#cut - before) % 2 == 1 and "\\" or "")
end

-- Where the first member begins; nothing while there is none.
local function find_first(tracker, text, at_end)
  local first, last = find(text, tracker.key, 1, true)
  local from = 1
  while first do
    if byte(text, first - 1) ~= BACKSLASH then
      local after = match(text, "^%s*()", last + 1)
      if sub(text, after, after) == ":" then
        return first
      elseif after > #text and not at_end then
        tracker.rest = sub(text, max(first - 1, 1), last)
        return nil
      end
    end
    from = last + 1
    first, last = find(text, tracker.key, from, true)
  end
  tracker.rest = sub(text, max(#text - #tracker.key, from))
end

-- If the text ends before the value is known: the bytes of the key that ends at `last` and of its
-- value, without white space. Nothing otherwise.
local function unfinished(tracker, text, last, value)
  local from = value or match(text, "^%s*()", last + 1)
  if value and #text - value < VALUE_BYTES or from > #text then
    return tracker.key .. (value and ":" or "") .. sub(text, from)
  end
end

-- Keeps the bytes of an open object.
local function capture(member, bytes)
  member.size = member.size + #bytes
  member.parts[#member.parts + 1] = bytes
  if member.is_too_long or member.size > MAX_OBJECT_BYTES then
    member.is_too_long, member.parts = true, {}
  end
end

local function close(tracker, member, bytes)
  capture(member, bytes)
  member.numbers = not member.is_too_long and tracker.read(concat(member.parts)) or nil
  member.is_open, member.parts = false, nil
end

local function new_member(tracker, text, value)
  local is_open = byte(text, value) == OPEN_BRACE
  return {
    depth = tracker.depth, is_open = is_open, parts = {}, size = 0,
    value = not is_open and sub(text, value, value + VALUE_BYTES - 1) or nil,
  }
end

-- Takes the next bytes of the text.
local function track(tracker, bytes, at_end)
  local text = tracker.rest .. bytes
  local at = tracker.is_started and find(text, '["{}%[%]]') or find_first(tracker, text, at_end)
  if not at and not tracker.is_started then
    return
  end
  tracker.is_started, tracker.rest = true, ""
  local key, member, from, stop = tracker.key, tracker.member, 1, #text
  while at do
    local char = byte(text, at)
    if char == QUOTE then
      local last = string_end(text, at)
      if not last then
        tracker.rest, stop = cut_string(tracker, text, at), at - 1
        tracker.is_cut = at_end
        break
      end
      local fits = (not member or tracker.depth <= member.depth) and last - at + 1 == #key
      if fits and sub(text, at, last) == key then
        local value = match(text, "^%s*:%s*()", last + 1)
        local rest = not at_end and unfinished(tracker, text, last, value)
        if rest then
          tracker.rest, stop = rest, at - 1
          break
        elseif value then
          member, from = new_member(tracker, text, value), value
          tracker.member = member
        end
      end
      at = last
    elseif char == OPEN_BRACE or char == OPEN_BRACKET then
      tracker.depth = tracker.depth + 1
    else
      tracker.depth = tracker.depth - 1
      if member and member.is_open and tracker.depth == member.depth then
        close(tracker, member, sub(text, from, at))
      end
    end
    at = find(text, '["{}%[%]]', at + 1)
  end
  if member and member.is_open then
    capture(member, sub(text, from, stop))
  end
end

-- The outermost member of the whole text: the last one of those with the smallest depth. It has its
-- `depth`, the `numbers` of an object, and the first bytes of any other `value`. The members of the
-- root have the depth 1. Nothing if there is none, or if the text ends within a string.
local function tracked(tracker)
  track(tracker, "", true)
  local member = tracker.member
  if tracker.is_cut or not member then
    return nil
  end
  member.depth = member.depth - tracker.depth
  return member
end

-- The numbers of the outermost member, if it is an object of the root.
local function root_numbers(tracker)
  local member = tracked(tracker)
  return member and member.depth == 1 and member.numbers or nil
end
