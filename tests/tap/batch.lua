-- Runs the tap on many answers in one request, inside Envoy's own Lua. It is appended to the tap
-- and splits.lua.
--
-- The body has for each answer a line `api client_usage n served_as sizes kind` and then its bytes. `sizes`
-- are the sizes of its pieces, joined by commas. The response has for each answer a line
-- `size usage`, and then the bytes that a client would see.

function envoy_on_request(handle)
  local buffer = handle:body()
  local body = buffer:getBytes(0, buffer:length())
  local at, results = 1, {}
  while at <= #body do
    local line = "^(%S+) (%S+) (%S+) (%S+) (%S+) ([^\n]+)\n()"
    local api, client_usage, n, served_as, sizes, kind, bytes = body:match(line, at)
    local pieces = {}
    for size in sizes:gmatch("%d+") do
      pieces[#pieces + 1] = body:sub(bytes, bytes + size - 1)
      bytes = bytes + size
    end
    at = bytes
    local request = { client_usage = client_usage, api = api, n = tonumber(n), kind = kind }
    request.served_as = served_as ~= "-" and served_as or nil
    local out, usage = run(request, pieces)
    results[#results + 1] = #out .. " " .. usage .. "\n" .. out
  end
  handle:respond({ [":status"] = "200" }, table.concat(results))
end
