-- Reads a body above the limit to its end and keeps nothing of it; a later filter refuses the request.
-- The renderer writes the numbers in place of LIMIT_BYTES and READ_BYTES, and the metadata's names.

function envoy_on_request(handle)
  local length = tonumber(handle:headers():get("content-length") or "")
  if not length or length <= LIMIT_BYTES or length > READ_BYTES then return end
  handle:streamInfo():dynamicMetadata():set("LARGE_BODY", "read", "yes")
  for chunk in handle:bodyChunks() do
    chunk:setBytes("")
  end
end
