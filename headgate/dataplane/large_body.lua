-- Reads a body above the limit to its end and keeps nothing of it; a later filter refuses the request.
-- The renderer writes the numbers in place of LIMIT_BYTES and READ_BYTES, and the metadata's names.
-- On the lean path a request without a credential is refused at its headers instead.

function envoy_on_request(handle)
  local headers = handle:headers()
  local length = tonumber(headers:get("content-length") or "")
  if not length or length <= LIMIT_BYTES or length > READ_BYTES then return end
  if LEAN and not has_credential(headers) then return end
  handle:streamInfo():dynamicMetadata():set("LARGE_BODY", "read", "yes")
  for chunk in handle:bodyChunks() do
    chunk:setBytes("")
  end
end
