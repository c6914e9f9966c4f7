-- The request side of the lean path: edits the body as ext_authz's answer says, in the proxy.
--
-- It reads the answer, dynamic metadata in the namespace of ext_authz, and writes its texts into
-- headgate.admission (names and values: headgate/core/contract.py). It does so after the edits. Envoy
-- lets a request pass if a script fails, and the next filter stops it without an admission.

-- The body with the edits made: a flat list of where each begins and ends (from 0), and its text.
local function edited(body, edits)
  local pieces, at = {}, 1
  for i = 1, #edits, 3 do
    pieces[#pieces + 1] = sub(body, at, edits[i])
    pieces[#pieces + 1] = edits[i + 2]
    at = edits[i + 1] + 1
  end
  pieces[#pieces + 1] = sub(body, at)
  return concat(pieces)
end

function envoy_on_request(handle)
  local answer = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.ext_authz")
  if not answer then
    return
  elseif answer.edits then
    local body = handle:body()
    body:setBytes(edited(body:getBytes(0, body:length()), answer.edits))
  end
  local metadata = handle:streamInfo():dynamicMetadata()
  for key, value in pairs(answer) do
    if type(value) == "string" then
      metadata:set("headgate.admission", key, value)
    end
  end
end
