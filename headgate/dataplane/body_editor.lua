-- The body editor of the lean path: makes the edits of a body that the answer of ext_authz asks for. A
-- matcher skips it for a request without the header x-headgate-edits, which goes no further.
--
-- It reads dynamic metadata envoy.filters.http.ext_authz, and writes the estimate into
-- headgate.admission (names and values: headgate/core/contract.py). It does so after the edits. Envoy
-- lets a request pass if a script fails, and the next filter stops it without this estimate.

local concat, sub = table.concat, string.sub

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
  handle:headers():remove("x-headgate-edits")
  local answer = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.ext_authz")
  local body = handle:body()
  body:setBytes(edited(body:getBytes(0, body:length()), answer.edits))
  handle:streamInfo():dynamicMetadata():set("headgate.admission", "estimate", answer.estimate)
end
