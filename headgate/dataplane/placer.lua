-- The placer: sends a request to the first pod of its list, if that pod is healthy. It leaves the rest to
-- the load balancer of the cluster, which takes them in order when it tries again.
--
-- It reads the list from dynamic metadata (names: headgate/core/contract.py): from headgate.admission, or on the
-- lean path from envoy.filters.http.ext_authz. The renderer writes TUNNEL before it: what Envoy puts before
-- the address of a pod that it reaches through a tunnel (HBONE), or "". A pod has one of both names in a
-- cluster, and the load balancer skips the other one.
--
-- Envoy lets a request pass if a script fails. Its load balancer then chooses the pod.

local NAMESPACES = { "headgate.admission", "envoy.filters.http.ext_authz" }

-- The list of a request; nil without one.
local function hosts_of(metadata)
  for _, namespace in ipairs(NAMESPACES) do
    local values = metadata:get(namespace)
    if values and type(values.hosts) == "string" then
      return values.hosts
    end
  end
end

function envoy_on_request(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  local first, rest = string.match(hosts_of(metadata) or "", "^([^,]+),?(.*)$")
  if not first then
    return
  end
  if TUNNEL ~= "" then
    rest = rest .. "," .. string.gsub(first .. "," .. rest, "[^,]+", TUNNEL .. "%0")
  end
  metadata:set("headgate.placement", "rest", rest)
  handle:setUpstreamOverrideHost(first, false)
end
