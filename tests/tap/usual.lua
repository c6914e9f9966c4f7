-- Says which events of a stream the tap reads by the shorter way, inside Envoy's own Lua. It is
-- appended to the tap.
--
-- A request carries the stream as its body. The first event is only learned from. The answer has
-- for each further event a `u` if it is usual, else a `-`.

function envoy_on_request(handle)
  local buffer = handle:body()
  local body, said = buffer:getBytes(0, buffer:length()), {}
  local tap = {
    api = "chat", client_usage = "none", n = 1, events = 0, gets_less = true, handle = handle,
    running = { prompt = {}, completion = {}, cached = {}, reasoning = {} },
  }
  for event in body:gmatch("(.-\n\n)") do
    if tap.head then
      said[#said + 1] = read_usual(tap, event) and "u" or "-"
    else
      learn_head(tap, event)
    end
  end
  handle:respond({ [":status"] = "200" }, table.concat(said))
end
