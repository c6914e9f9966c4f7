-- The lean path reads a body only if its request may show who sends it. Both filters that read bodies begin
-- with this. The renderer writes names in place of CREDENTIALS and LARGE_BODY.

local LEAN = true

-- Whether the connection has the certificate of a workload, which may need no key.
local function has_certificate(handle)
  local tls = handle:streamInfo():downstreamSslConnection()
  return tls ~= nil and #tls:uriSanPeerCertificate() > 0
end

-- Whether a request has a header that may carry a key, or a certificate. Else it ends at its headers.
local function has_credential(handle)
  local headers = handle:headers()
  for _, name in ipairs({ CREDENTIALS }) do
    if headers:get(name) then
      return true
    end
  end
  return has_certificate(handle)
end

-- Whether the body was above the limit, and has been dropped.
local function is_large(handle)
  return handle:streamInfo():dynamicMetadata():get("LARGE_BODY") ~= nil
end
