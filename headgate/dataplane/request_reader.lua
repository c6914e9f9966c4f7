-- The request reader: reads a request's body once, inside the proxy, and writes the fields that
-- admission needs. It needs json_strings.lua, json_reader.lua, prompt_reader.lua,
-- place_reader.lua and form_reader.lua. The renderer writes LEAN before all of them: whether this is
-- the lean path.
--
-- It writes dynamic metadata in the namespace headgate.request (names: headgate/core/contract.py).
--
-- * body: "read" for a JSON object that was read to its end, "form" for a form, "unreadable" for
--   anything else. A body that stays "parsed" was not read, and the request is refused.
-- * fault, fault_at, encoding: why a body is unreadable, the place (in bytes from 0), and the
--   content-encoding.
-- * model, stream, n and the other FIELDS, with their JSON type. A list, an object or null is as if
--   absent. If a name is repeated, its last member counts.
-- * include_usage, continuous_usage: the same of `stream_options`.
-- * hidden: a field that sets the cost, whose string is too long to be shown. vLLM may still read a
--   number from it.
-- * platform: the members that only the platform may set, joined by commas, without null members.
-- * fields: the members that a policy may limit, each as `name=value`, joined by commas.
-- * prompts, conversations: the number of prompts of a completion, and of conversations in a batch.
-- * text_bytes, images: the size of the prompt (prompt_reader.lua).
-- * places, salt: what a rewrite may change (place_reader.lua), on the lean path.
--
-- For a form (below /v1/audio/) form_reader.lua reads its fields:
--
-- * model, model_at: the model, and where its value begins in the body, counted from 0.
-- * include_usage_at, continuous_usage_at: where the values of these two fields begin, if present.
-- * stream, include_usage, continuous_usage: the flags.
-- * platform: the fields that are not served.
-- * boundary, include_usage_end, continuous_usage_end: what a rewrite needs, on the lean path.
--
-- Prompts are walked over without decoding, and never leave the proxy.

local char, gsub, lower, match, sub = string.char, string.gsub, string.lower, string.match, string.sub

local NAMESPACE = "headgate.request"
local BOM = "\239\187\191"
local SHOWN_BYTES = 8 * 1024 -- the longest string that is shown, decoded
local MAX_ESCAPED = 6 -- bytes of an escape, for one byte

local NO_NUL = "\239\191\189" -- Envoy ends a metadata string at a NUL; no name of a policy has this

local FIELDS = { model = "model", stream = "stream", background = "background", n = "n",
  max_tokens = "max_tokens", max_completion_tokens = "max_completion_tokens",
  max_output_tokens = "max_output_tokens", prompt_cache_key = "prompt_cache_key" }
local OPTIONS = { include_usage = "include_usage", continuous_usage_stats = "continuous_usage" }
local FREE = { prompt_cache_key = true } -- decides nothing, so it may be hidden
local LIMITED = {}
for name in string.gmatch([[
  allowed_token_ids bad_words best_of documents echo functions guided_choice guided_grammar
  guided_json guided_regex ignore_eos include logit_bias logprob_token_ids logprobs max_tool_calls
  min_tokens mm_processor_kwargs n output_config prompt_embeds prompt_logprobs reasoning
  reasoning_effort response_format return_token_ids stop structured_outputs text thinking
  tool_choice tools top_logprobs truncate_prompt_tokens use_beam_search
]], "%S+") do
  LIMITED[name] = true
end
local COUNTED = { prompt = true, prompt_embeds = true, messages = true }

local NAMED_ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- The UTF-8 of a code point.
local function utf8_of(code)
  if code < 0x80 then
    return char(code)
  elseif code < 0x800 then
    return char(0xC0 + math.floor(code / 64), 0x80 + code % 64)
  elseif code < 0x10000 then
    return char(0xE0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  end
  return char(0xF0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
    0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

-- The text of a valid string without its escapes.
local function decoded_string(raw)
  if not find(raw, "\\", 1, true) then
    return raw
  end
  raw = gsub(raw, "(\\+)u([dD][89abAB]%x%x)\\u([dD][c-fC-F]%x%x)", function(slashes, high, low)
    if #slashes % 2 == 0 then
      return nil
    end
    local code = 0x10000 + (tonumber(high, 16) - 0xD800) * 1024 + tonumber(low, 16) - 0xDC00
    return sub(slashes, 2) .. utf8_of(code)
  end)
  return (gsub(raw, "\\(.)(%x?%x?%x?%x?)", function(kind, digits)
    if kind == "u" then
      return utf8_of(tonumber(digits, 16))
    end
    return (NAMED_ESCAPES[kind] or kind) .. digits
  end))
end

-- The value of a scalar: a string (false if it is too long to be shown), number, boolean or nil.
local function value_of(text, at, last)
  local sign = byte(text, at)
  if sign == QUOTE then
    local is_long = last - at - 1 > SHOWN_BYTES * MAX_ESCAPED
    local value = not is_long and gsub(decoded_string(sub(text, at + 1, last - 1)), "%z", NO_NUL)
    return value and #value <= SHOWN_BYTES and value or false, true
  elseif LITERALS[sign] then
    return ({ ["true"] = true, ["false"] = false })[LITERALS[sign]], false
  end
  return tonumber(sub(text, at, last)), false
end

-- Notes a scalar member of the top level.
local function note_scalar(request, text, key, at, last)
  local value, is_string
  if FIELDS[key] then
    value, is_string = value_of(text, at, last)
    if is_string and value == false then
      request.hidden = not FREE[key] and key or request.hidden
      value = nil
    end
    request.values[FIELDS[key]] = value
  end
  local word = LITERALS[byte(text, at)]
  if PLATFORM[key] and word ~= "null" then
    request.platform[key] = true
  elseif LIMITED[key] then
    local is_set = word ~= "null" and word ~= "false"
    local is_number = not word and byte(text, at) ~= QUOTE
    request.limited[key] = is_set and (is_number and tonumber(sub(text, at, last)) or word or "-")
      or nil
  end
  if COUNTED[key] then
    request.prompts[key] = byte(text, at) == QUOTE and 1 or nil
  end
end

-- Notes a member of the top level that is a list or an object.
local function note_compound(request, key, frame)
  if FIELDS[key] then
    request.values[FIELDS[key]] = nil
  end
  if PLATFORM[key] then
    request.platform[key] = true
  elseif LIMITED[key] then
    request.limited[key] = frame.count or 0
  end
  if COUNTED[key] then
    local is_several = frame.is_list and (frame.first == QUOTE or frame.first == OPEN_BRACKET)
    request.prompts[key] = is_several and frame.count or 1
  end
end

-- A later `stream_options` takes the place of an earlier one.
local function forget_options(request, key)
  if key == "stream_options" then
    request.values.include_usage, request.values.continuous_usage = nil, nil
  end
end

-- The rules with which walk_json reads a request into `request`.
local function rules_of(request, text, path)
  local prompt, places = prompt_rules(path), place_rules(text)
  local rules = {}
  function rules.open(parent, key, at, sign, spaces)
    local frame = { key = key, parent = parent, is_list = sign == OPEN_BRACKET }
    if not parent then
      frame.is_top = true
      places.begin(at)
      return frame
    end
    if parent.is_top then
      prompt.begin(key, at, spaces)
      frame.is_options, frame.at = key == "stream_options", at
      forget_options(request, key)
    end
    if parent.is_options and OPTIONS[key] then
      request.values[OPTIONS[key]] = nil
      frame.option_at = at
    end
    frame.role = prompt.role(parent, key, sign)
    return (parent.is_top or frame.role or frame.option_at) and frame or false
  end
  function rules.scalar(frame, key, at, last)
    if frame.is_top then
      prompt.scalar(key, text, at, last)
      note_scalar(request, text, key, at, last)
      forget_options(request, key)
      places.member(key, at, last)
    elseif frame.is_options and OPTIONS[key] and not frame.is_list then
      places.option(frame, key, at, last)
      request.values[OPTIONS[key]] = value_of(text, at, last) or nil
      if LITERALS[byte(text, at)] == "false" then
        request.values[OPTIONS[key]] = false
      end
    elseif frame.role then
      prompt.part(frame, key, text, at, last)
    end
  end
  function rules.close(frame, last, spaces)
    local parent = frame.parent
    if parent and parent.is_top then
      prompt.finish(last, spaces)
      note_compound(request, frame.key, frame)
      places.member(frame.key, frame.at, last, frame)
    elseif frame.option_at then
      places.option(parent, frame.key, frame.option_at, last)
    end
    if frame.role then
      prompt.close(frame)
    end
  end
  return rules, prompt, places
end

local function joined(set, with_values)
  local names = {}
  for name, value in pairs(set) do
    if with_values then
      value = type(value) == "number" and string.format("%.17g", value) or value
      name = name .. "=" .. value
    end
    names[#names + 1] = name
  end
  table.sort(names)
  return table.concat(names, ",")
end

-- The metadata of a JSON body, and its fault with the place if it is not a JSON object.
local function read_body(text, path)
  local request = { values = {}, platform = {}, limited = {}, prompts = {} }
  local start = sub(text, 1, 3) == BOM and 4 or 1
  local sign = next_sign(text, start)
  if not sign then
    return nil, "empty"
  end
  local rules, prompt, places = rules_of(request, text, path)
  local is_read, fault, fault_at = walk_json(text, start, rules)
  if not is_read or sign ~= OPEN_BRACE then
    return nil, fault or "not_object", fault_at
  end
  local found = request.values
  local prompts = (request.prompts.prompt or 0) + (request.prompts.prompt_embeds or 0)
  local conversations = request.prompts.messages or 0
  found.hidden = request.hidden
  found.platform = next(request.platform) and joined(request.platform)
  found.fields = next(request.limited) and joined(request.limited, true)
  found.prompts = prompts > 1 and prompts or nil
  found.conversations = conversations > 1 and conversations or nil
  found.text_bytes = prompt.text_bytes
  found.images = prompt.images > 0 and prompt.images or nil
  if LEAN then
    found.places, found.salt = places.text(), places.salt
  end
  found.body = "read"
  return found
end
