-- Replaces what a reservation holds with what was really used, once.
--
-- A script, because whether the reservation is still open, and all the counters that it
-- changes, have to be one step: the proxy and the access log both settle, on any replica.
--
-- KEYS    1  the reservation's record, written by reserve.lua. It names the counters and leases
--            to change, which carry the same hash tag. The caller cannot know them: it may be
--            another replica, after a change of the policy.
-- ARGV    1..4  what was used: requests, input tokens, cached input tokens, output tokens
--         5     now, ms since the epoch, by the caller's clock
--         6     how long the settled id is remembered, ms
-- Result  {outcome, {key, in use now, key, in use now, ...}}
--         outcome: 0 unknown, 1 settled, 2 settled before; only 1 changes anything
--
-- Everything is read before the first write: a script that fails has changed nothing.

local MAX_COUNT = 9007199254740992

local record = KEYS[1]
local now, keep = tonumber(ARGV[5]), tonumber(ARGV[6])
local after_now = '(' .. ARGV[5]

-- What was used, weighted in thousandths and rounded up. The whole part of a weight is apart, so
-- that what is counted one by one stays exact as far as a double counts.
local function actual(weights)
  local whole, thousandths, index = 0, 0, 0
  for weight in string.gmatch(weights, '%d+') do
    index = index + 1
    local count = tonumber(ARGV[index])
    whole = whole + count * math.floor(tonumber(weight) / 1000)
    thousandths = thousandths + count * (tonumber(weight) % 1000)
  end
  return math.min(MAX_COUNT, whole + math.ceil(thousandths / 1000))
end

local fields = redis.call('HGETALL', record)
local state, hold_end
local counters, leases = {}, {}
for index = 1, #fields, 2 do
  local name, value = fields[index], fields[index + 1]
  local kind, key = string.match(name, '^(%l+) (.*)$')
  if name == 'state' then
    state = value
  elseif name == 'until' then
    hold_end = tonumber(value)
  elseif kind == 'lease' then
    leases[#leases + 1] = {key = key, holder = value}
  else
    local used = redis.call('GET', key)
    -- A window that is over has lost its counter: making it anew would leave it for ever.
    if used then
      local amount, weights = string.match(value, '^(%d+) (.*)$')
      local count = tonumber(used) + (actual(weights) - tonumber(amount))
      counters[#counters + 1] = {key = key, count = math.min(MAX_COUNT, math.max(0, count))}
    end
  end
end

if not state or now >= hold_end then
  return {0, {}}
end
if state == 'settled' then
  return {2, {}}
end

local used = {}
for _, counter in ipairs(counters) do
  redis.call('SET', counter.key, string.format('%.0f', counter.count), 'KEEPTTL')
  used[#used + 1] = counter.key
  used[#used + 1] = counter.count
end
for _, lease in ipairs(leases) do
  redis.call('ZREM', lease.key, lease.holder)
  used[#used + 1] = lease.key
  used[#used + 1] = redis.call('ZCOUNT', lease.key, after_now, '+inf')
end
redis.call('DEL', record)
redis.call('HSET', record, 'state', 'settled', 'until', string.format('%.0f', now + keep))
redis.call('PEXPIRE', record, keep)
return {1, used}
