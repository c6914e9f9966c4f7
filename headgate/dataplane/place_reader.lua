-- The place reader: notes where a JSON body has what a rewrite may change, while walk_json passes
-- over it. The lean path sends these places to the services, which answer with edits.
--
-- places: a text `name=first:end` for each, joined by commas, in bytes from 0; `end` is not within.
--
-- * open: behind the first brace. model, cache_salt: the value of the last such member.
-- * options, options_empty, options_null, options_other: the value of the last `stream_options`, by
--   its kind. include_usage, continuous_usage_stats: the values in it.
-- * each other member that only the platform may set, from behind the value before it, with a third
--   number: where the next member begins. "many" in place of the whole text above MOST_MEMBERS.
-- * salt: the JSON of `cache_salt`.

local format = string.format

local PLATFORM = { cache_salt = true, ec_transfer_params = true, kv_transfer_params = true,
  priority = true, request_id = true, session_id = true, vllm_xargs = true }
local MOST_MEMBERS = 32
local MOST_SALT_BYTES = 12 * 1024 + 2 -- 1,024 characters, each as two escapes
local WHOLE = { model = true, cache_salt = true }
local OPTION_KINDS = { [byte("n")] = "options_null" }

local function place(name, first, last)
  return format("%s=%d:%d", name, first - 1, last)
end

local function place_rules(text)
  local places = {}
  local open_at, behind, options = 0, 0, nil
  local whole, inner, members = {}, {}, {}

  -- The object at the top level begins.
  function places.begin(at)
    open_at, behind = at, at + 1
  end

  -- A member of the top level has this value; `frame` if it is a list or an object.
  function places.member(key, at, last, frame)
    if WHOLE[key] then
      whole[key] = place(key, at, last)
      if key == "cache_salt" then
        local is_small = not frame and last - at < MOST_SALT_BYTES
        places.salt = is_small and sub(text, at, last) or "{}"
      end
    elseif key == "stream_options" then
      local kind = OPTION_KINDS[byte(text, at)] or "options_other"
      if frame and not frame.is_list then
        kind = frame.count and "options" or "options_empty"
      end
      options = place(kind, at, last)
      inner = frame and frame.places or {}
    elseif PLATFORM[key] then
      local following = match(text, "^[ \t\r\n]*,?[ \t\r\n]*()", last + 1)
      members[#members + 1] = format("%s:%d", place(key, behind, last), following - 1)
    end
    behind = last + 1
  end

  -- A member of `stream_options` that asks for usage has this value.
  function places.option(frame, key, at, last)
    frame.places = frame.places or {}
    frame.places[key] = place(key, at, last)
  end

  -- All places as one text.
  function places.text()
    if #members > MOST_MEMBERS then
      return "many"
    end
    for _, set in ipairs({ whole, inner }) do
      for _, item in pairs(set) do
        members[#members + 1] = item
      end
    end
    members[#members + 1] = place("open", open_at + 1, open_at)
    members[#members + 1] = options
    return table.concat(members, ",")
  end

  return places
end
