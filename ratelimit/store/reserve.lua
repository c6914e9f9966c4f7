-- Grants everything that one reservation asks for or, without changing anything, nothing.
--
-- A script, because no limit may be charged unless all of them have room, even if other replicas
-- ask at the same time. MULTI cannot decide in the middle, and WATCH needs several round trips.
--
-- KEYS 1: the reservation's record (hash).
-- KEYS 2..: its counters (strings), then its leases (sorted sets: holder -> end in ms). Then, if it
-- has work in a queue, the tenant's finish (string), and a name of which no key exists.
--
-- A counter that drains is a bucket: 'LEVEL AT', its level at that time in ms. All keys carry the
-- tenant's hash tag: one slot of a Redis Cluster.
--
-- ARGV 1: holder, the name under which the leases are held.
-- ARGV 2: now, ms since the epoch, by the caller's clock.
-- ARGV 3: how long it can be settled, in ms.
-- ARGV 4: the number of counters.
-- ARGV 5: the number of leases.
--
-- Then, for each counter: weights, amount, limit, life in ms, enforced, drain. The weights are kept
-- for settle.lua. A bucket lives for its life after it has drained.
--
-- Then, for each lease: limit, life in ms, enforced.
--
-- Then, for work in a queue: weights, work, virtual time, life in ms.
--
-- `enforced` is 1, or 0 for a counter or lease that is granted without room too. `drain` is the
-- amount that drains in each ms; 0 for a counter that does not.
--
-- Result: {decision, used, refused, exceeded, starts}. `decision` is 0 for refused, 1 for admitted (now or
-- before), 2 for settled before: then nothing is granted. `used` is in use after it, by KEYS 2...
-- `refused` holds the indexes from 0 of those without room that are enforced, `exceeded` of those
-- that are not. `starts` holds the start in the queue, if it has one.
--
-- The finish is in the record as a counter: every version of settle.lua corrects it. The start is
-- there under the name of which no key exists: older versions pass it by.
--
-- Everything is read before the first write: a script that fails has changed nothing.

local record = KEYS[1]
local holder, now, hold = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local counters = tonumber(ARGV[4])
local leases = tonumber(ARGV[5])

local stored, times, used, refused, exceeded = {}, {}, {}, {}, {}

local function demand(index)
  local first = 6 + (index - 1) * 6
  return KEYS[1 + index], unpack(ARGV, first, first + 5)
end

local function lease(index)
  local first = 6 + counters * 6 + (index - 1) * 3
  return KEYS[1 + counters + index], unpack(ARGV, first, first + 2)
end

-- The state in the record, 'held' or 'settled'; nil without a record that still counts.
local function live_state()
  local state, hold_end = unpack(redis.call('HMGET', record, 'state', 'until'))
  if state and now < tonumber(hold_end) then
    return state
  end
  return nil
end

local function lacks(index, enforced)
  local indexes = enforced == '1' and refused or exceeded
  indexes[#indexes + 1] = index - 1
end

local function read_counter(index)
  local key, _, amount, limit, _, enforced, drain = demand(index)
  stored[index] = redis.call('GET', key)
  if drain ~= '0' then
    used[index], times[index] = level_of(stored[index], tonumber(drain), now)
  else
    used[index] = tonumber(stored[index] or 0)
  end
  -- Written this way round no sum leaves the integers that a double holds exactly.
  if used[index] > tonumber(limit) - tonumber(amount) then
    lacks(index, enforced)
  end
end

local function read_lease(index)
  local key, limit, _, enforced = lease(index)
  local in_use = redis.call('ZCOUNT', key, '(' .. ARGV[2], '+inf')
  used[counters + index] = in_use
  if in_use >= tonumber(limit) then
    lacks(counters + index, enforced)
  end
end

-- Fills a bucket to `count`; returns the field of the record for it, and its value.
local function fill_bucket(index, count)
  local key, weights, amount, _, life, _, drain = demand(index)
  local at = text_of(times[index])
  local life_ms = times[index] - now + math.ceil(count / tonumber(drain)) + tonumber(life)
  redis.call('SET', key, text_of(count) .. ' ' .. at, 'PX', text_of(life_ms))
  return 'bucket ' .. key, table.concat({amount, drain, at, life, weights}, ' ')
end

-- Raises a counter to `count`; returns the field of the record for it, and its value.
local function raise_counter(index, count)
  local key, weights, amount, _, life = demand(index)
  if stored[index] then
    redis.call('INCRBY', key, text_of(count - used[index]))
  else
    redis.call('SET', key, amount, 'PX', life)
  end
  return 'counter ' .. key, amount .. ' ' .. weights
end

-- Takes a slot; returns the field of the record for it, and its value.
local function take_slot(index)
  local key, _, life = lease(index)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  redis.call('ZADD', key, text_of(now + tonumber(life)), holder)
  if redis.call('PTTL', key) < tonumber(life) then
    redis.call('PEXPIRE', key, life)
  end
  return 'lease ' .. key, holder
end

-- The start in the queue, as the record of an earlier call has it, in a list; else an empty list.
local function kept_starts()
  local name = KEYS[3 + counters + leases]
  local start = name and redis.call('HGET', record, 'start ' .. name)
  return start and {tonumber(start)} or {}
end

-- Takes the next start in the queue, and moves the finish; adds the fields of the record for both.
local function take_start(fields)
  local key, name = KEYS[2 + counters + leases], KEYS[3 + counters + leases]
  if not key then
    return {}
  end
  local weights, work, virtual_time, life = unpack(ARGV, 6 + counters * 6 + leases * 3)
  local start = math.max(tonumber(virtual_time), tonumber(redis.call('GET', key) or 0))
  redis.call('SET', key, text_of(math.min(MAX_COUNT, start + tonumber(work))), 'PX', life)
  fields[#fields + 1], fields[#fields + 2] = 'counter ' .. key, work .. ' ' .. weights
  fields[#fields + 1], fields[#fields + 2] = 'start ' .. name, text_of(start)
  return {start}
end

-- Charges all counters, takes all slots and writes the record. `used` is what is in use then.
-- Returns `starts`.
local function grant()
  local fields = {'state', 'held', 'until', text_of(now + hold)}
  for index = 1, counters do
    local _, _, amount = demand(index)
    -- Only a limit that is not enforced can come to the end of what a double counts.
    local count = math.min(MAX_COUNT, used[index] + tonumber(amount))
    local charge = times[index] and fill_bucket or raise_counter
    fields[#fields + 1], fields[#fields + 2] = charge(index, count)
    used[index] = count
  end
  for index = 1, leases do
    fields[#fields + 1], fields[#fields + 2] = take_slot(index)
    used[counters + index] = used[counters + index] + 1
  end
  local starts = take_start(fields)
  redis.call('DEL', record)
  redis.call('HSET', record, unpack(fields))
  redis.call('PEXPIRE', record, hold)
  return starts
end

local state = live_state()
if state == 'settled' then
  return {2, {}, {}, {}, {}}
end
for index = 1, counters do
  read_counter(index)
end
for index = 1, leases do
  read_lease(index)
end
if state then
  return {1, used, {}, {}, kept_starts()}
end
if #refused > 0 then
  return {0, used, refused, exceeded, {}}
end
local starts = grant()
return {1, used, {}, exceeded, starts}
