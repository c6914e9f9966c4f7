-- The form reader: reads the fields of a multipart form, strictly.
--
-- vLLM reads a form with python-multipart, which accepts much: a preamble, folded headers, several
-- names. Here only forms as client libraries write them pass, so that both read the same fields.
-- Any other form is nil (400). The file is skipped without decoding, and never leaves the proxy. A
-- plain search finds the boundaries: 16 MB take milliseconds.

local lower, match, sub = string.lower, string.match, string.sub

local MAX_HEAD_BYTES, MAX_PARTS, MAX_MODEL_BYTES = 4096, 64, 1024
local NOT_SERVED = { n = true, use_beam_search = true, vllm_xargs = true }
local FLAGS = { stream = "stream", stream_include_usage = "include_usage",
  stream_continuous_usage_stats = "continuous_usage" }
local WORDS = { ["true"] = true, ["1"] = true, on = true, t = true, y = true, yes = true,
  ["false"] = false, ["0"] = false, off = false, f = false, n = false, no = false }

-- The boundary in a content type, without quotes or (.NET) with them. Nothing for another content
-- type, and for any other parameter. It has no comma, because Envoy joins two headers of one name
-- with a comma.
local function boundary_of(content_type)
  local kind, rest = match(content_type or "", "^([%w/-]+) *; *[Bb]oundary=(.-) *$")
  local boundary = rest
    and (match(rest, '^"([%w\'()+_./:=?-]+)"$') or match(rest, "^[%w'+_.-]+$"))
  return boundary and lower(kind) == "multipart/form-data" and #boundary <= 70 and boundary or nil
end

-- The name and the value of a parameter behind `form-data`, and where the next parameter begins.
-- Nothing if it has another syntax. A value must not contain a quote, a backslash or a control
-- character, because readers differ in those.
local function parameter(value, at)
  local key, behind = match(value, "^; ?([%w*]+)=()", at)
  if not key then
    return nil
  end
  local text, next_at = match(value, '^"([^"\\%c]*)"()', behind)
  if not text then
    text, next_at = match(value, "^([%w_.%[%]%%'*-]+)()", behind)
  end
  return text and lower(key), text, next_at
end

-- The name in a content-disposition, and whether the part is a file. Its parameters are `name`, and
-- optionally `filename` and `filename*`, in this order. .NET sends `filename*`, too; vLLM's parser
-- ignores it.
local function disposition(value)
  local at = match(value, "^[Ff][Oo][Rr][Mm]%-[Dd][Aa][Tt][Aa]()")
  local given = {}
  for _, expected in ipairs({ "name", "filename", "filename*" }) do
    if not at or at > #value then
      break
    end
    local key, text, next_at = parameter(value, at)
    if key ~= expected then
      return nil
    end
    given[key], at = text, next_at
  end
  if not at or at <= #value or not given.name or not match(given.name, "^[%w_.%[%]-]+$") then
    return nil
  end
  return given.name, given.filename ~= nil
end

-- The other headers that clients write in a part; vLLM's parser ignores them.
local IGNORED = {
  ["content-type"] = "^[^%c]*$",
  ["content-length"] = "^%d+$", -- okhttp, Guzzle
  ["content-transfer-encoding"] = "^%w+$", -- Apache HttpClient: binary
}

-- The name of a part and whether it is a file, from its headers, each with its line end. Every byte
-- of the head must belong to a header: for vLLM's parser a bare LF is a part of the header's value.
local function part_name(head)
  local name, is_file, at = nil, false, 1
  while at <= #head do
    local header, value, next_at = match(head, "^([%w-]+): *([^%c]*)\r\n()", at)
    header = header and lower(header)
    if header == "content-disposition" and not name then
      name, is_file = disposition(value)
      if not name then
        return nil
      end
    elseif not header or not IGNORED[header] or not match(value, IGNORED[header]) then
      return nil
    end
    at = next_at
  end
  return name, is_file
end

-- The part that begins at `at`: its name, whether it is a file, and the place of its value, which
-- ends before the next delimiter.
local function read_part(text, at, delimiter)
  local head_end = find(sub(text, at, at + MAX_HEAD_BYTES), "\r\n\r\n", 1, true)
  if not head_end then
    return nil
  end
  local name, is_file = part_name(sub(text, at, at + head_end))
  local first = at + head_end + 3
  local stop = find(text, delimiter, first, true)
  if not name or not stop or sub(text, first, first + #delimiter - 3) == sub(delimiter, 3) then
    return nil
  end
  return { name = name, is_file = is_file, first = first, last = stop - 1 }
end

-- The fields of a form: model, stream and the usage fields, each with its offset from 0, and the
-- fields that are not served.
--
-- Nothing if the form has another syntax, or if a relevant field is repeated or is a file. Nothing
-- either if a flag is not one of the words that vLLM accepts.
local function read_form(text, content_type)
  local boundary = boundary_of(content_type)
  if not boundary or sub(text, 1, #boundary + 4) ~= "--" .. boundary .. "\r\n" then
    return nil
  end
  local delimiter, at, form = "\r\n--" .. boundary, #boundary + 5, { not_served = {}, boundary = boundary }
  for _ = 1, MAX_PARTS do
    local part = read_part(text, at, delimiter)
    if not part then
      return nil
    end
    local last = math.min(part.last, part.first + MAX_MODEL_BYTES)
    local value = part.is_file and "" or sub(text, part.first, last)
    if part.name == "model" then
      local is_name = match(value, "^[%w%p ]+$") and #value <= MAX_MODEL_BYTES
      if form.model or part.is_file or not is_name then
        return nil
      end
      form.model, form.model_at = value, part.first - 1
    elseif FLAGS[part.name] then
      local key, word = FLAGS[part.name], WORDS[lower(value)]
      if form[key] ~= nil or part.is_file or word == nil then
        return nil
      end
      form[key], form[key .. "_at"], form[key .. "_end"] = word, part.first - 1, part.last
    elseif NOT_SERVED[part.name] then
      form.not_served[#form.not_served + 1] = part.name
    end
    at = part.last + 1 + #delimiter
    local behind = sub(text, at, at + 1)
    if behind == "--" then
      local rest = sub(text, at + 2)
      return (rest == "" or rest == "\r\n") and form or nil
    elseif behind ~= "\r\n" then
      return nil
    end
    at = at + 2
  end
  return nil
end
