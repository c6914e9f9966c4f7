-- Replaces what a reservation holds with what was really used, once.
--
-- A script, because one step must check that the reservation is still open and change all its
-- counters. The proxy and the access log both settle, on any replica.
--
-- KEYS 1: the reservation's record, written by reserve.lua. It names the counters, buckets and
-- leases to change, which carry the same hash tag. The caller cannot know them: it may be another
-- replica, after a change of the policy.
--
-- ARGV 1..5: the use, as requests, input tokens, cached input tokens, output tokens and seconds of
-- audio.
-- ARGV 6: now, ms since the epoch, by the caller's clock.
-- ARGV 7: how long the settled id is remembered, in ms.
--
-- Result: {outcome, {key, in use now, key, in use now, ...}, {name, start}}. `outcome` is 0 for
-- unknown, 1 for settled, 2 for settled before; only 1 changes anything. The third list is empty
-- unless it was settled now and had a start in a queue.
--
-- Everything is read before the first write: a script that fails has changed nothing.

local record = KEYS[1]
local now, keep = tonumber(ARGV[6]), tonumber(ARGV[7])

local counters, buckets, leases, starts = {}, {}, {}, {}

-- The use, weighted in thousandths and rounded up. The whole part of a weight is separate, so that
-- whole units stay exact as far as a double counts. The weight of a second of audio is in letters,
-- A for 0, and only there if it is not 0. Older versions know four weights, and pass letters by.
local function actual(weights)
  local whole, thousandths, index = 0, 0, 0
  weights = string.gsub(weights, '%u', function(letter)
    return string.char(string.byte(letter) - string.byte('A') + string.byte('0'))
  end)
  for weight in string.gmatch(weights, '%d+') do
    index = index + 1
    local count = tonumber(ARGV[index])
    whole = whole + count * math.floor(tonumber(weight) / 1000)
    thousandths = thousandths + count * (tonumber(weight) % 1000)
  end
  return math.min(MAX_COUNT, whole + math.ceil(thousandths / 1000))
end

-- A count within what a double counts exactly.
local function bounded(count)
  return math.min(MAX_COUNT, math.max(0, count))
end

-- How much of what was held goes back, where less was used and `drained` could drain since.
-- The comment in buckets.py proves that this never leaves less in the bucket than the actual use would.
local function given_back(held, used, drained)
  return math.max(0, held - drained) - math.max(0, used - drained)
end

local function read_bucket(key, value)
  local pattern = '^(%d+) (%d+) (%d+) (%d+) (.*)$'
  local held, drain, filled, life, weights = string.match(value, pattern)
  held, drain, filled = tonumber(held), tonumber(drain), tonumber(filled)
  local stored, used = redis.call('GET', key), actual(weights)
  local level, at = level_of(stored, drain, now)
  local more = used - held
  if more < 0 then
    -- Both times are the bucket's own, so that no clock drains what no clock has drained.
    more = -given_back(held, used, drain * math.max(0, at - filled))
  end
  level = bounded(level + more)
  local life_ms = at - now + math.ceil(level / drain) + tonumber(life)
  -- A bucket that was forgotten, as it had drained, is made anew for what was used beyond.
  local is_kept = stored or level > 0
  buckets[#buckets + 1] = {key = key, level = level, at = at, life_ms = life_ms, is_kept = is_kept}
end

local function read_counter(key, value)
  local stored = redis.call('GET', key)
  -- A window that is over has lost its counter: making it anew would keep it for ever.
  if stored then
    local amount, weights = string.match(value, '^(%d+) (.*)$')
    local count = tonumber(stored) + (actual(weights) - tonumber(amount))
    counters[#counters + 1] = {key = key, count = bounded(count)}
  end
end

-- Reads the record and what it names; returns its state and its end.
local function read_record()
  local state, hold_end
  local fields = redis.call('HGETALL', record)
  for index = 1, #fields, 2 do
    local name, value = fields[index], fields[index + 1]
    local kind, key = string.match(name, '^(%l+) (.*)$')
    if name == 'state' then
      state = value
    elseif name == 'until' then
      hold_end = tonumber(value)
    elseif kind == 'lease' then
      leases[#leases + 1] = {key = key, holder = value}
    elseif kind == 'start' then
      starts = {key, tonumber(value)}
    elseif kind == 'bucket' then
      read_bucket(key, value)
    else
      read_counter(key, value)
    end
  end
  return state, hold_end
end

local function write_bucket(bucket)
  if bucket.is_kept then
    local value = text_of(bucket.level) .. ' ' .. text_of(bucket.at)
    redis.call('SET', bucket.key, value, 'PX', text_of(bucket.life_ms))
  end
end

local function free_slot(lease)
  redis.call('ZREM', lease.key, lease.holder)
  return redis.call('ZCOUNT', lease.key, '(' .. ARGV[6], '+inf')
end

-- Writes everything; returns what is in use then, as in the result.
local function settle()
  local used = {}
  for _, counter in ipairs(counters) do
    redis.call('SET', counter.key, text_of(counter.count), 'KEEPTTL')
    used[#used + 1], used[#used + 2] = counter.key, counter.count
  end
  for _, bucket in ipairs(buckets) do
    write_bucket(bucket)
    used[#used + 1], used[#used + 2] = bucket.key, bucket.level
  end
  for _, lease in ipairs(leases) do
    used[#used + 1], used[#used + 2] = lease.key, free_slot(lease)
  end
  redis.call('DEL', record)
  redis.call('HSET', record, 'state', 'settled', 'until', text_of(now + keep))
  redis.call('PEXPIRE', record, keep)
  return used
end

local state, hold_end = read_record()
if not state or now >= hold_end then
  return {0, {}, {}}
end
if state == 'settled' then
  return {2, {}, {}}
end
return {1, settle(), starts}
