-- Replaces what a reservation holds with what was really used, once.
--
-- A script, because whether the reservation is still open, and all the counters that it
-- changes, have to be one step: the proxy and the access log both settle, on any replica.
--
-- KEYS    1  the reservation's record, written by reserve.lua. It names the counters, buckets
--            and leases to change, which carry the same hash tag. The caller cannot know them: it may be
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

-- What is in a bucket now, and the time of that: as in reserve.lua.
local function level_of(value, drain)
  if not value then
    return 0, now
  end
  local level, at = string.match(value, '^(%d+) (%d+)$')
  level, at = tonumber(level), tonumber(at)
  if now <= at then
    return level, at
  end
  return math.max(0, level - drain * (now - at)), now
end

-- How much of what was held to give back, where less was used and `drained` could drain since.
-- Why that never leaves less in the bucket than the actual would stands in buckets.py.
local function given_back(held, used, drained)
  return math.max(0, held - drained) - math.max(0, used - drained)
end

local fields = redis.call('HGETALL', record)
local state, hold_end
local counters, buckets, leases = {}, {}, {}
for index = 1, #fields, 2 do
  local name, value = fields[index], fields[index + 1]
  local kind, key = string.match(name, '^(%l+) (.*)$')
  if name == 'state' then
    state = value
  elseif name == 'until' then
    hold_end = tonumber(value)
  elseif kind == 'lease' then
    leases[#leases + 1] = {key = key, holder = value}
  elseif kind == 'bucket' then
    local pattern = '^(%d+) (%d+) (%d+) (%d+) (.*)$'
    local held, drain, filled, life, weights = string.match(value, pattern)
    held, drain, filled = tonumber(held), tonumber(drain), tonumber(filled)
    local stored, used = redis.call('GET', key), actual(weights)
    local level, at = level_of(stored, drain)
    local more = used - held
    if more < 0 then
      -- Both times are the bucket's own, so that no clock drains what no clock has drained.
      more = -given_back(held, used, drain * math.max(0, at - filled))
    end
    level = math.min(MAX_COUNT, math.max(0, level + more))
    local left = at - now + math.ceil(level / drain) + tonumber(life)
    -- One that was forgotten, as it had drained, is made anew for what was used beyond.
    local is_kept = stored or level > 0
    buckets[#buckets + 1] = {key = key, level = level, at = at, left = left, is_kept = is_kept}
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
for _, bucket in ipairs(buckets) do
  if bucket.is_kept then
    local value = string.format('%.0f %.0f', bucket.level, bucket.at)
    redis.call('SET', bucket.key, value, 'PX', string.format('%.0f', bucket.left))
  end
  used[#used + 1] = bucket.key
  used[#used + 1] = bucket.level
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
