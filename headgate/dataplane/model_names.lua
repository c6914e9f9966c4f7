-- The model names: gives answers and errors the model's name in the policy, where vLLM has another.
--
-- `names` has the `name` that the client knows and vLLM's own, `served_as`. It needs the usage
-- events.

local MODEL, SIGNS = '"model"', '["{}%[%]]'
local MAX_NAME_BYTES = 1024 -- a model whose member is longer keeps its name
local MAX_ERROR_BYTES = 64 * 1024 -- as much of an error is held back
local DEPTHS = { chat = 1, completions = 1, responses = 2, messages = 2 }

-- Two alternating texts: where vLLM's name may be in a message, and the same with the other name.
local function quotings(names)
  local list = {}
  for _, marks in ipairs({ "``", "''", '""', '"\\"' }) do
    local open, close = sub(marks, 1, 1), sub(marks, 2)
    local served_as = gsub(open .. names.served_as .. close, "[%p]", "%%%0")
    list[#list + 1] = { served_as, gsub(open .. names.name .. close, "%%", "%%%%") }
  end
  return list
end

-- A whole error with the client's name. vLLM also lists its other names, which are no client's.
local function rename_error(names, text)
  names.quotings = names.quotings or quotings(names)
  for _, quoting in ipairs(names.quotings) do
    text = gsub(text, quoting[1], quoting[2])
  end
  return (gsub(text, ' Valid aliases: [^"\\]*', ""))
end

-- An event with the client's name in `model`: of a chunk, or of the message or response in it.
local function rename_event(names, api, event)
  local json = json_of(event)
  local first, value = find_member(json, MODEL)
  local root = first and find(json, "{", 1, true)
  if not root then
    return event
  end
  local depth = DEPTHS[api] or 1
  if depth > 1 or (find(json, "[{%[]", root + 1) or first) < first then
    local model = outermost(json, MODEL)
    value = model and model.depth == depth and model.value
  end
  local last = value and byte(json, value) == QUOTE and string_end(json, value)
  return last and splice(event, value + 1, last - 1, names.name) or event
end

local function new_renamer(names)
  return { name = names.name, rest = "", depth = 0 }
end

-- The text of a string that goes on: all of it, but no backslash whose second byte is missing.
local function pass_string(renamer, text, at_end)
  local before = #text
  while byte(text, before) == BACKSLASH do
    before = before - 1
  end
  local is_odd = (#text - before) % 2 == 1 and not at_end
  renamer.in_string, renamer.rest = true, is_odd and "\\" or ""
  return is_odd and sub(text, 1, -2) or text
end

-- Where the string of a `model` whose key is at `first` to `last` begins and ends. Without an end:
-- whether it may still come.
local function model_name(text, first, last, at_end)
  local value = match(text, "^%s*:%s*()", last + 1)
  local stop = value and byte(text, value) == QUOTE and string_end(text, value)
  if stop and stop - first <= MAX_NAME_BYTES then
    return value, stop
  end
  local open = value or match(text, "^%s*()", last + 1)
  local is_open = open > #text or value and byte(text, value) == QUOTE
  return nil, not stop and is_open and #text - first < MAX_NAME_BYTES and not at_end
end

-- The next bytes of a JSON answer, with the client's name in the `model` of its root.
local function rename_json(renamer, bytes, at_end)
  if renamer.is_done then
    return bytes
  end
  local text, at = renamer.rest .. bytes, 1
  renamer.rest = ""
  if renamer.in_string then
    local last = string_end(text, 0)
    if not last then
      return pass_string(renamer, text, at_end)
    end
    renamer.in_string, at = false, last + 1
  end
  at = find(text, SIGNS, at)
  while at do
    local char, last = byte(text, at), at
    if char == QUOTE then
      last = string_end(text, at)
      if not last and (renamer.depth ~= 1 or #text - at >= #MODEL or at_end) then
        return pass_string(renamer, text, at_end)
      end
      local is_model = renamer.depth == 1 and last and sub(text, at, last) == MODEL
      local value, stop = nil, not last
      if is_model then
        value, stop = model_name(text, at, last, at_end)
      end
      if value then
        renamer.is_done = true
        return splice(text, value + 1, stop - 1, renamer.name)
      elseif stop then
        renamer.rest = sub(text, at)
        return sub(text, 1, at - 1)
      end
    elseif char == OPEN_BRACE or char == OPEN_BRACKET then
      renamer.depth = renamer.depth + 1
    else
      renamer.depth = renamer.depth - 1
    end
    at = find(text, SIGNS, last + 1)
  end
  return text
end
