-- Grants everything that one reservation asks for or, without changing anything, nothing.
--
-- A script, because no limit may be charged unless all of them have room, whoever else asks at
-- the same time. MULTI cannot decide in the middle, and WATCH needs several round trips.
--
-- KEYS    1         the reservation's record (hash)
--         2..       its counters (strings), then its leases (sorted sets: holder -> end in ms);
--                   a counter that drains is a bucket: 'LEVEL AT', its level at that time in ms
--         All of them carry the tenant's hash tag: one slot of a Redis Cluster.
-- ARGV    1         holder: the name under which the leases are held
--         2         now, ms since the epoch, by the caller's clock
--         3         how long it can be settled, ms
--         4         number of counters
--         then      for each counter: weights (kept for settle.lua), amount, limit, life in ms,
--                   enforced, drain; one that drains lives for its life after it has drained
--         then      for each lease: limit, life in ms, enforced
--         enforced  1, or 0 for one that is granted without room too
--         drain     how much drains in each ms; 0 for a counter that does not
-- Result  {decision, {in use after it, by KEYS 2..}, {indexes from 0 of those without room},
--         {of those without room that are not enforced}}
--         decision: 0 refused, 1 admitted (now or before), 2 settled before: nothing granted
--
-- Everything is read before the first write: a script that fails has changed nothing.

local MAX_COUNT = 9007199254740992

local record = KEYS[1]
local holder, now, hold = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local counters = tonumber(ARGV[4])
local leases = #KEYS - 1 - counters
local after_now = '(' .. ARGV[2]

local function demand(index)
  local first = 5 + (index - 1) * 6
  return KEYS[1 + index], unpack(ARGV, first, first + 5)
end

local function lease(index)
  local first = 5 + counters * 6 + (index - 1) * 3
  return KEYS[1 + counters + index], unpack(ARGV, first, first + 2)
end

-- What is in a bucket now, and the time of that. A clock that steps back drains nothing, and
-- nothing twice when it is right again: the time of a level never goes back.
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

local state, hold_end = unpack(redis.call('HMGET', record, 'state', 'until'))
local live = state and now < tonumber(hold_end)
if live and state == 'settled' then
  return {2, {}, {}, {}}
end

local stored, times, used, refused, exceeded = {}, {}, {}, {}, {}

local function lacks(index, enforced)
  local indexes = enforced == '1' and refused or exceeded
  indexes[#indexes + 1] = index - 1
end

for index = 1, counters do
  local key, _, amount, limit, _, enforced, drain = demand(index)
  stored[index] = redis.call('GET', key)
  if drain ~= '0' then
    used[index], times[index] = level_of(stored[index], tonumber(drain))
  else
    used[index] = tonumber(stored[index] or 0)
  end
  -- Written this way round no sum leaves the integers that a double holds exactly.
  if used[index] > tonumber(limit) - tonumber(amount) then
    lacks(index, enforced)
  end
end
for index = 1, leases do
  local key, limit, _, enforced = lease(index)
  local in_use = redis.call('ZCOUNT', key, after_now, '+inf')
  used[counters + index] = in_use
  if in_use >= tonumber(limit) then
    lacks(counters + index, enforced)
  end
end

if live then
  return {1, used, {}, {}}
end
if #refused > 0 then
  return {0, used, refused, exceeded}
end

local fields = {'state', 'held', 'until', string.format('%.0f', now + hold)}
for index = 1, counters do
  local key, weights, amount, _, life, _, drain = demand(index)
  -- Only a limit that is not enforced can come to the end of what a double counts.
  local count = math.min(MAX_COUNT, used[index] + tonumber(amount))
  if times[index] then
    local at = string.format('%.0f', times[index])
    local left = times[index] - now + math.ceil(count / tonumber(drain)) + tonumber(life)
    redis.call('SET', key, string.format('%.0f', count) .. ' ' .. at, 'PX', string.format('%.0f', left))
    fields[#fields + 1] = 'bucket ' .. key
    fields[#fields + 1] = table.concat({amount, drain, at, life, weights}, ' ')
  else
    if stored[index] then
      redis.call('INCRBY', key, string.format('%.0f', count - used[index]))
    else
      redis.call('SET', key, amount, 'PX', life)
    end
    fields[#fields + 1] = 'counter ' .. key
    fields[#fields + 1] = amount .. ' ' .. weights
  end
  used[index] = count
end
for index = 1, leases do
  local key, _, life = lease(index)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  redis.call('ZADD', key, string.format('%.0f', now + tonumber(life)), holder)
  if redis.call('PTTL', key) < tonumber(life) then
    redis.call('PEXPIRE', key, life)
  end
  used[counters + index] = used[counters + index] + 1
  fields[#fields + 1] = 'lease ' .. key
  fields[#fields + 1] = holder
end
redis.call('DEL', record)
redis.call('HSET', record, unpack(fields))
redis.call('PEXPIRE', record, hold)
return {1, used, {}, exceeded}
