-- The prompt reader: measures the prompt in a request's body while walk_json passes over it.
--
-- * text_bytes: the bytes of the strings, lists and objects at the top level that may reach the
--   prompt. White space between values and images do not count.
-- * images: the number of images, recordings, videos and files.
--
-- Only a part of a message can be an image: messages[].content[], and the same below a tool_result.
-- A `data:` URL anywhere else (a content string, a tool's schema) is text that the model reads.

local NO_TEXT = { model = true, stream_options = true, prompt_cache_key = true, user = true,
  cache_salt = true }
local PROMPTS = { messages = true, input = true }
local SCORED = { query = true, queries = true, documents = true, text_1 = true, text_2 = true,
  data_1 = true, data_2 = true }
local SCORES = "^/v%d/score"
local RERANKS = "^/v%d/rerank"
local IMAGES = { image_url = true, audio_url = true, video_url = true, input_audio = true,
  source = true, file = true, file_data = true, file_url = true, file_id = true,
  image_embeds = true, audio_embeds = true }
local DATA = { url = true, data = true, file_data = true, file_url = true }
local PLAIN_SOURCES = { ['"text"'] = true, ['"content"'] = true }

-- The measure of one request to `path`.
local function prompt_rules(path)
  local scores = string.match(path, SCORES) or string.match(path, RERANKS)
  local holders = scores and SCORED or PROMPTS
  local prompt = { text_bytes = 0, images = 0 }
  local image_bytes, first, spaces_before = 0, nil, 0

  -- A list or object of the top level begins at `at`.
  function prompt.begin(key, at, spaces)
    first, spaces_before, image_bytes = not NO_TEXT[key] and at or nil, spaces, 0
  end

  -- It ends.
  function prompt.finish(last, spaces)
    if first then
      local skipped = spaces - spaces_before + image_bytes
      prompt.text_bytes = prompt.text_bytes + last + 1 - first - skipped
    end
  end

  -- Another value of the top level: a string may be a prompt.
  function prompt.scalar(key, text, at, last)
    if not NO_TEXT[key] and byte(text, at) == QUOTE then
      prompt.text_bytes = prompt.text_bytes + last + 1 - at
    end
  end

  -- The role of a list or object in the prompt; nil if no image can be below it.
  function prompt.role(parent, key, sign)
    local is_list = sign == OPEN_BRACKET
    if parent.is_top then
      return holders[key] and (is_list and "messages" or "message") or nil
    elseif parent.role == "messages" then
      return is_list and "messages" or "message"
    elseif parent.role == "message" then
      return is_list and key == "content" and "parts" or nil
    elseif parent.role == "parts" then
      return not is_list and "part" or nil
    elseif parent.role == "part" then
      if is_list then
        return key == "content" and "parts" or nil
      end
      return IMAGES[key] and "image" or nil
    end
  end

  -- A string, number, boolean or null within such a list or object.
  function prompt.part(frame, key, text, at, last)
    local is_text = byte(text, at) == QUOTE
    if frame.role == "part" and IMAGES[key] and is_text then
      frame.has_image = true
      image_bytes = image_bytes + last - at - 1
    elseif frame.role == "image" and is_text then
      if DATA[key] then
        frame.bytes = (frame.bytes or 0) + last - at - 1
      elseif key == "type" then
        frame.is_plain = PLAIN_SOURCES[string.sub(text, at, last)]
      end
    end
  end

  function prompt.close(frame)
    if frame.role == "image" and not frame.is_plain then
      frame.parent.has_image = true
      image_bytes = image_bytes + (frame.bytes or 0)
    elseif frame.role == "part" and frame.has_image then
      prompt.images = prompt.images + 1
    end
  end

  return prompt
end
