-- The request reader: what a body's top level holds and json_to_metadata cannot tell. Needs the form reader.
--
-- Runs behind json_to_metadata, which has read the body as strict JSON by then (`body` is "parsed"), so that
-- nothing here has to check it. Writes dynamic metadata headgate.request (names: headgate/core/contract.py)
--   body           "read" once all of it is read, "unreadable" for what is no object. A body that stays "parsed"
--                  was not read to its end, and the request is refused.
--   hidden         a member that decides what a request costs, with a string so long that json_to_metadata shows
--                  nothing of it, while vLLM reads a number from it.
--   platform       the members that only the platform may set, joined by commas; one that is null is none.
--   prompts        how many prompts a completion has.
--   conversations  how many conversations a batch of chats has.
-- Of a form (below /v1/audio/, multipart/form-data), which json_to_metadata does not read, all of it is written here:
--   body           "form"
--   model, model_at  the model, and where its value begins in the body, counted from 0.
--   include_usage_at, continuous_usage_at  the same of these two fields, where they are.
--   stream, include_usage, continuous_usage, platform as above; `platform` holds the fields that are not served.
-- Prompts are skipped, not decoded, and never leave the proxy.

local byte, char, find, gsub, match, sub = string.byte, string.char, string.find, string.gsub, string.match, string.sub

local QUOTE, OPEN_BRACE, OPEN_BRACKET, BACKSLASH = byte('"{[\\', 1, -1)
local CLOSE_BRACE, CLOSE_BRACKET, NULL = byte("}]n", 1, -1)
local BOM = "\239\187\191"
local SHOWN_BYTES = 8 * 1024 -- what json_to_metadata shows of a string, at the most

local DECIDING, PLATFORM = {}, {}
for name in string.gmatch("model stream background n max_tokens max_completion_tokens max_output_tokens", "%S+") do
  DECIDING[name] = true
end
for name in string.gmatch("cache_salt ec_transfer_params kv_transfer_params priority request_id session_id vllm_xargs", "%S+") do
  PLATFORM[name] = true
end

-- The quote that closes the string opened at `at`: it has an even number of backslashes before it.
local function string_end(text, at)
  repeat
    at = find(text, '"', at + 1, true)
    local before = at - 1
    while byte(text, before) == BACKSLASH do
      before = before - 1
    end
  until (at - before) % 2 == 1
  return at
end

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

-- A key without its escapes. Only those of ASCII matter: no name that is looked for has another.
local function decoded(key)
  if not find(key, "\\", 1, true) then
    return key
  end
  return (gsub(key, "\\u00([0-7]%x)", function(code)
    return char(tonumber(code, 16))
  end))
end

-- Text, or ids in one list, are one prompt; else each element is one.
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

-- Everything above about one object, whose brace is at `at`; nothing where anything but space comes after it, as
-- json_to_metadata takes a NUL for the end of the text. The last of members with one name counts.
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

-- The whole body, nothing where none came.
local function body_text(handle)
  local body = handle:body()
  return body and body:getBytes(0, body:length())
end

local FORM_KEYS = { "model", "model_at", "stream", "include_usage", "include_usage_at", "continuous_usage",
  "continuous_usage_at" }

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
  if request and request.body == "unreadable" and find(handle:headers():get(":path"), "/v1/audio/", 1, true) == 1 then
    note_form(handle)
    return
  elseif not request or request.body ~= "parsed" then
    return
  end
  local text = body_text(handle)
  local at = match(text, "^%s*()", sub(text, 1, 3) == BOM and 4 or 1)
  metadata = handle:streamInfo():dynamicMetadata() -- the body may have been waited for
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
