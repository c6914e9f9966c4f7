-- The lean path reads a body only if its request may have a key. Both filters that read bodies begin
-- with this. The renderer writes names in place of CREDENTIALS and LARGE_BODY.

local LEAN = true

-- Whether a request has a header that may carry a key. Without one it ends at its headers.
local function has_credential(headers)
  for _, name in ipairs({ CREDENTIALS }) do
    if headers:get(name) then
      return true
    end
  end
  return false
end

-- Whether the body was above the limit, and has been dropped.
local function is_large(handle)
  return handle:streamInfo():dynamicMetadata():get("LARGE_BODY") ~= nil
end
