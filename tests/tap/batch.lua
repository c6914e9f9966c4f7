-- Runs the tap on many answers in one request, inside Envoy's own Lua. Appended to the tap and splits.lua.
--
-- The body holds for each answer a line `api client_usage n sizes kind` (the sizes of its pieces, joined by
-- commas) and then its bytes; the response holds for each a line `size usage` and what the client would see.

function envoy_on_request(handle)
  local buffer = handle:body()
  local body = buffer:getBytes(0, buffer:length())
  local at, results = 1, {}
  while at <= #body do
    local api, client_usage, n, sizes, kind, bytes = body:match("^(%S+) (%S+) (%S+) (%S+) ([^\n]+)\n()", at)
    local pieces = {}
    for size in sizes:gmatch("%d+") do
      pieces[#pieces + 1] = body:sub(bytes, bytes + size - 1)
      bytes = bytes + size
    end
    at = bytes
    local out, usage = run({ client_usage = client_usage, api = api, n = tonumber(n), kind = kind }, pieces)
    results[#results + 1] = #out .. " " .. usage .. "\n" .. out
  end
  handle:respond({ [":status"] = "200" }, table.concat(results))
end
