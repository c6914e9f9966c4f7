-- The request reader: reads the top level of a body for fields that json_to_metadata cannot show.
-- It needs json_strings.lua and the form reader.
--
-- It runs behind json_to_metadata, which has already read the body as strict JSON (`body` is
-- "parsed"), so the body's syntax is not checked again here. It writes dynamic metadata in the
-- namespace headgate.request (names: headgate/core/contract.py).
--
-- * body: "read" once all of it is read, "unreadable" if it is not an object. A body that stays
--   "parsed" was not read to its end, and the request is refused.
-- * hidden: a member that sets the cost of a request, whose string is too long for
--   json_to_metadata. vLLM may still read a number from it.
-- * platform: the members that only the platform may set, joined by commas, without null members.
-- * prompts: the number of prompts of a completion.
-- * conversations: the number of conversations in a chat batch.
--
-- json_to_metadata does not read forms (below /v1/audio/, multipart/form-data). For a form all
-- fields are written here.
--
-- * body: "form".
-- * model, model_at: the model, and where its value begins in the body, counted from 0.
-- * include_usage_at, continuous_usage_at: where the values of these two fields begin, if present.
-- * stream, include_usage, continuous_usage: the flags.
-- * platform: the fields that are not served.
--
-- Prompts are skipped without decoding, and never leave the proxy.

local char, gsub, match, sub = string.char, string.gsub, string.match, string.sub

local CLOSE_BRACE, CLOSE_BRACKET, NULL = byte("}]n", 1, -1)
local BOM = "\239\187\191"
local SHOWN_BYTES = 8 * 1024 -- the longest string that json_to_metadata shows

local DECIDING = { model = true, stream = true, background = true, n = true, max_tokens = true,
  max_completion_tokens = true, max_output_tokens = true }
local PLATFORM = { cache_salt = true, ec_transfer_params = true, kv_transfer_params = true,
  priority = true, request_id = true, session_id = true, vllm_xargs = true }

-- The last byte of the value that begins at `at`.
local function value_end(text, at)
  local first = byte(text, at)
  if first == QUOTE then
    return string_end(text, at)
  elseif first ~= OPEN_BRACE and first ~= OPEN_BRACKET then
    return match(text, "^[^,%]}%s]+()", at) - 1
  end
  local depth = 0
  while true do
    local sign = byte(text, at)
    if sign == QUOTE then
      at = string_end(text, at)
    elseif sign == OPEN_BRACE or sign == OPEN_BRACKET then
      depth = depth + 1
    elseif sign == CLOSE_BRACE or sign == CLOSE_BRACKET then
      depth = depth - 1
      if depth == 0 then
        return at
      end
    end
    at = match(text, '^[^"{}%[%]]*()', at + 1)
  end
end

-- A key without its escapes. Only escaped ASCII matters, because every name of interest is ASCII.
local function decoded(key)
  if not find(key, "\\", 1, true) then
    return key
  end
  return (gsub(key, "\\u00([0-7]%x)", function(code)
    return char(tonumber(code, 16))
  end))
end

-- The number of prompts in a value: 1 for text and for a list of ids, else the number of elements.
local function count_prompts(text, at)
  local first = match(text, "^%[%s*()", at)
  local sign = first and byte(text, first)
  if sign ~= QUOTE and sign ~= OPEN_BRACKET then
    return 1
  end
  local count, element = 0, first
  while element do
    count = count + 1
    element = match(text, "^%s*,%s*()", value_end(text, element) + 1)
  end
  return count
end

-- Reads the object whose brace is at `at`. Returns the platform's members, the hidden member, and
-- the numbers of prompts and conversations. If a name is repeated, its last member counts.
--
-- Nothing if the object is not followed by white space only: json_to_metadata takes a NUL for the
-- end of the text.
local function read_object(text, at)
  local seen, platform, hidden = {}, {}, nil
  local last = at
  local key_at = match(text, '^%s*()"', at + 1)
  while key_at do
    local key_end = string_end(text, key_at)
    local key = decoded(sub(text, key_at + 1, key_end - 1))
    local value = match(text, "^%s*:%s*()", key_end + 1)
    last = value_end(text, value)
    if DECIDING[key] and byte(text, value) == QUOTE and last - value > SHOWN_BYTES then
      hidden = key
    elseif PLATFORM[key] and byte(text, value) ~= NULL and not platform[key] then
      platform[key], platform[#platform + 1] = true, key
    elseif key == "prompt" or key == "prompt_embeds" or key == "messages" then
      seen[key] = byte(text, value) ~= NULL and count_prompts(text, value) or nil
    end
    key_at = match(text, '^%s*,%s*()"', last + 1)
  end
  if match(text, "^%s*}%s*()", last + 1) ~= #text + 1 then
    return nil
  end
  return platform, hidden, (seen.prompt or 0) + (seen.prompt_embeds or 0), seen.messages
end

-- The whole body; nothing without a body.
local function body_text(handle)
  local body = handle:body()
  return body and body:getBytes(0, body:length())
end

local FORM_KEYS = { "model", "model_at", "stream", "include_usage", "include_usage_at",
  "continuous_usage", "continuous_usage_at" }

local function note_form(handle)
  local text = body_text(handle)
  local form = text and read_form(text, handle:headers():get("content-type"))
  if not form then
    return
  end
  local metadata = handle:streamInfo():dynamicMetadata()
  for _, key in ipairs(FORM_KEYS) do
    if form[key] ~= nil then
      metadata:set("headgate.request", key, form[key])
    end
  end
  if #form.not_served > 0 then
    metadata:set("headgate.request", "platform", table.concat(form.not_served, ","))
  end
  metadata:set("headgate.request", "body", "form")
end

function envoy_on_request(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local request = metadata:get("headgate.request")
  if request and request.body == "unreadable" then
    if find(handle:headers():get(":path"), "/v1/audio/", 1, true) == 1 then
      note_form(handle)
    end
    return
  elseif not request or request.body ~= "parsed" then
    return
  end
  local text = body_text(handle)
  local at = match(text, "^%s*()", sub(text, 1, 3) == BOM and 4 or 1)
  metadata = handle:streamInfo():dynamicMetadata() -- fetched again: body() may have waited
  local platform, hidden, prompts, conversations
  if byte(text, at) == OPEN_BRACE then
    platform, hidden, prompts, conversations = read_object(text, at)
  end
  if not platform then
    metadata:set("headgate.request", "body", "unreadable")
    return
  end
  if hidden then
    metadata:set("headgate.request", "hidden", hidden)
  end
  if #platform > 0 then
    metadata:set("headgate.request", "platform", table.concat(platform, ","))
  end
  if prompts > 1 then
    metadata:set("headgate.request", "prompts", prompts)
  end
  if conversations and conversations > 1 then
    metadata:set("headgate.request", "conversations", conversations)
  end
  metadata:set("headgate.request", "body", "read")
end
