-- Envoy's entry into the request reader: which body is read, and as what.

local JSON_TYPE = "^application/json[ \t]*$"
local COMPRESSED = { ["\31\139"] = "gzip", ["\40\181"] = "zstd" } -- a body's first bytes
local FORM_KEYS = { "model", "model_at", "stream", "include_usage", "include_usage_at",
  "continuous_usage", "continuous_usage_at" }
local LEAN_FORM_KEYS = { "boundary", "include_usage_end", "continuous_usage_end" }

-- The whole body; "" without one.
local function body_text(handle)
  local body = handle:body()
  return body and body:length() > 0 and body:getBytes(0, body:length()) or ""
end

-- The metadata of a form; nothing if it is malformed.
local function read_form_body(text, content_type)
  local form = read_form(text, content_type)
  if not form then
    return nil, "form"
  end
  local found = { body = "form" }
  for _, key in ipairs(FORM_KEYS) do
    found[key] = form[key]
  end
  for _, key in ipairs(LEAN and LEAN_FORM_KEYS or {}) do
    found[key] = form[key]
  end
  if #form.not_served > 0 then
    found.platform = table.concat(form.not_served, ",")
  end
  return found
end

-- The content-encoding of a body, "" for none. Clients may write `identity`.
local function encoding_of(headers, text)
  local encoding = lower(headers:get("content-encoding") or "")
  if encoding == "" or encoding == "identity" then
    return COMPRESSED[sub(text, 1, 2)] or ""
  end
  return gsub(sub(encoding, 1, 40), "[^%w, ._-]", "?")
end

-- The metadata of the body; or nothing, the fault, its place and the encoding.
local function read_any(text, path, headers)
  local content_type = headers:get("content-type")
  local encoding = encoding_of(headers, text)
  if encoding ~= "" then
    return nil, "encoding", nil, encoding
  elseif find(path, "/v1/audio/", 1, true) == 1 then
    return read_form_body(text, content_type)
  elseif text == "" then
    return nil, "empty"
  elseif not content_type then
    return nil, "no_type"
  elseif not find(lower(match(content_type, "^[^;]*")), JSON_TYPE) then
    return nil, "type"
  end
  return read_body(text, path)
end

function envoy_on_request(handle)
  if LEAN and not has_credential(handle) then
    return
  end
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(NAMESPACE, "body", "parsed")
  local text = body_text(handle)
  local headers = handle:headers()
  metadata = handle:streamInfo():dynamicMetadata() -- fetched again: body() may have waited
  local found, fault, fault_at, encoding
  if LEAN and (#text > LIMIT_BYTES or text == "" and is_large(handle)) then
    fault, fault_at = "large", LIMIT_BYTES + 1
  else
    found, fault, fault_at, encoding = read_any(text, headers:get(":path"), headers)
  end
  if not found then
    found = { body = "unreadable", fault = fault, encoding = encoding,
      fault_at = fault_at and fault_at - 1 }
  end
  local body = found.body
  found.body = nil
  for key, value in pairs(found) do
    metadata:set(NAMESPACE, key, value)
  end
  metadata:set(NAMESPACE, "body", body)
end
