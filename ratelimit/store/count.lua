-- Adds hits to counters for good: all of them or, if the call is refused, none.
--
-- A hit without room refuses the call. A quota without room refuses it only if no quota has room.
-- If quotas alone refuse it, they are counted nevertheless.
--
-- A script, because no counter may be changed unless all of them have room, even if other replicas
-- ask at the same time. INCRBY alone would charge the counters beside the one without room.
--
-- KEYS: the counter (string) of each hit; hits may share one. All carry one hash tag.
--
-- ARGV, for each hit: amount (below 0 gives back, 0 only looks), limit ('' for none), life in ms,
-- and 1 for a quota.
--
-- Result: {counts, refused}. `counts` is in use after each hit; before them if the call is refused.
-- `refused` holds the indexes, from 0, of the hits that refuse it.
--
-- Everything is read before the first write: a script that fails has changed nothing.

local stored, counts, before, used = {}, {}, {}, {}
local refused, full, quotas = {}, {}, {}

local function hit(index)
  local first = (index - 1) * 4 + 1
  return KEYS[index], tonumber(ARGV[first]), tonumber(ARGV[first + 1]), ARGV[first + 2]
end

local function is_quota(index)
  return ARGV[index * 4] == '1'
end

local function read(index)
  local key = hit(index)
  if not counts[key] then
    stored[key] = redis.call('GET', key)
    counts[key] = tonumber(stored[key] or 0)
  end
  before[index] = counts[key]
end

local function has_room(index)
  local key, amount, limit = hit(index)
  -- Written this way round no sum leaves the integers that a double holds exactly.
  return not limit or amount < 0 or counts[key] <= limit - math.max(1, amount)
end

local function add(index)
  local key, amount = hit(index)
  if counts[key] > MAX_COUNT - amount then
    counts[key] = MAX_COUNT
  else
    counts[key] = math.max(0, counts[key] + amount)
  end
end

local function write(index)
  local key, _, _, life = hit(index)
  local count = text_of(counts[key])
  if stored[key] then
    redis.call('SET', key, count, 'KEEPTTL')
  elseif counts[key] > 0 then
    redis.call('SET', key, count, 'PX', life)
    stored[key] = count
  end
end

for index = 1, #KEYS do
  read(index)
end
for index = 1, #KEYS do
  if is_quota(index) then
    quotas[#quotas + 1] = index
    if not has_room(index) then
      full[#full + 1] = index - 1
    end
    add(index)
  elseif has_room(index) then
    add(index)
  else
    refused[#refused + 1] = index - 1
  end
  used[index] = counts[KEYS[index]]
end

if #refused > 0 then
  return {before, refused}
end
if #full > 0 and #full == #quotas then
  for index = 1, #KEYS do
    counts[KEYS[index]] = before[index]
  end
  for _, index in ipairs(quotas) do
    add(index)
  end
  for _, index in ipairs(quotas) do
    write(index)
  end
  return {before, full}
end
for index = 1, #KEYS do
  write(index)
end
return {used, {}}
