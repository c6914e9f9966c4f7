-- Runs the tap on one stream with every cut, inside Envoy's own Lua. It is appended to the tap.
--
-- A request carries the stream as its body and the admission in x-* headers. Its answer has the
-- bytes that a client would see, and the usage in a `usage` header (`key=value` joined by `;`). The
-- stream is run whole, in single bytes, and cut in two at each byte. If any two results differ, the
-- answer is 500 and says which.

local function fake_handle(request, pieces)
  local result = { out = {}, usage = {} }
  local metadata = {
    ["headgate.admission"] = {
      client_usage = request.client_usage, api = request.api, per_second = request.per_second,
      served_as = request.served_as, model = "alias",
    },
    ["headgate.request"] = { n = request.n },
  }
  local headers = { [":status"] = request.status or "200", ["content-type"] = request.kind }
  local handle = {}
  function handle:headers()
    return {
      get = function(_, name) return headers[name] end,
      remove = function(_, name) headers[name] = nil end,
    }
  end
  function handle:timestamp() return 1700000000123 end
  function handle:streamInfo()
    return { dynamicMetadata = function()
      return {
        get = function(_, namespace) return metadata[namespace] end,
        set = function(_, namespace, key, value)
          assert(namespace == "headgate.usage" and type(value) == "string")
          result.usage[key] = value
        end,
      }
    end }
  end
  function handle:bodyChunks()
    local at = 0
    return function()
      at = at + 1
      if pieces[at] then
        result.out[at] = pieces[at]
        local index = at
        return {
          length = function() return #pieces[index] end,
          getBytes = function(_, from, length) return pieces[index]:sub(from + 1, from + length) end,
          setBytes = function(_, bytes) result.out[index] = bytes end,
        }
      end
    end
  end
  return handle, result
end

local function run(request, pieces)
  local handle, result = fake_handle(request, pieces)
  envoy_on_response(handle)
  local usage = {}
  for key, value in pairs(result.usage) do
    usage[#usage + 1] = key .. "=" .. value
  end
  table.sort(usage)
  return table.concat(result.out), table.concat(usage, ";")
end

local function single_bytes(body)
  local pieces = {}
  for at = 1, #body do
    pieces[at] = body:sub(at, at)
  end
  pieces[#pieces + 1] = "" -- as HTTP/1 ends a chunked body
  return pieces
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local request = {
    client_usage = headers:get("x-client-usage"), api = headers:get("x-api"),
    n = tonumber(headers:get("x-n") or "1"), kind = headers:get("x-kind"),
    per_second = headers:get("x-per-second"), served_as = headers:get("x-served-as"),
    status = headers:get("x-status"),
  }
  local buffer = handle:body()
  local body = buffer and buffer:getBytes(0, buffer:length()) or ""
  local out, usage = run(request, { body })
  local function check(how, pieces)
    local other_out, other_usage = run(request, pieces)
    if other_out ~= out or other_usage ~= usage then
      handle:respond({ [":status"] = "500" }, how .. ": " .. other_usage .. "\n" .. other_out)
    end
  end
  check("single bytes", single_bytes(body))
  for at = 1, #body - 1 do
    check("cut after byte " .. at, { body:sub(1, at), body:sub(at + 1) })
  end
  handle:respond({ [":status"] = "200", usage = usage }, out)
end
