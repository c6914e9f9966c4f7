-- Reads a body above the limit to its end and keeps nothing beyond the limit; a later filter refuses the
-- request. A body that is longer than READ_BYTES is not read on: the next filter refuses it at once.
-- The renderer writes the numbers in place of LIMIT_BYTES and READ_BYTES, and the metadata's names.
-- On the lean path a request without a credential is refused at its headers instead.

function envoy_on_request(handle)
  local headers = handle:headers()
  local length = tonumber(headers:get("content-length") or "")
  if length and (length <= LIMIT_BYTES or length > READ_BYTES) then return end
  if LEAN and not has_credential(handle) then return end
  local read = 0
  for chunk in handle:bodyChunks() do
    read = read + chunk:length()
    if (length or read) > LIMIT_BYTES and read <= READ_BYTES then
      handle:streamInfo():dynamicMetadata():set("LARGE_BODY", "read", "yes")
      chunk:setBytes("")
    end
  end
end
