-- Adds hits to counters for good: all of them or, without changing anything, none.
--
-- A script, because no counter may be changed unless all of them have room, even if other replicas
-- ask at the same time. INCRBY alone would charge the counters beside the one without room.
--
-- KEYS: the counter (string) of each hit; hits may share one. All carry one hash tag.
--
-- ARGV, for each hit: amount (below 0 gives back, 0 only looks), limit ('' for none), life in ms.
--
-- Result: {counts, refused}. `counts` is in use after each hit; before them if any was refused.
-- `refused` holds the indexes of the refused hits, from 0.
--
-- Everything is read before the first write: a script that fails has changed nothing.

local stored, counts, before, used, refused = {}, {}, {}, {}, {}

local function hit(index)
  local first = (index - 1) * 3 + 1
  return KEYS[index], tonumber(ARGV[first]), tonumber(ARGV[first + 1]), ARGV[first + 2]
end

-- Counts one hit: `used` is as before it where it is refused.
local function add(index)
  local key, amount, limit = hit(index)
  if not counts[key] then
    stored[key] = redis.call('GET', key)
    counts[key] = tonumber(stored[key] or 0)
  end
  before[index] = tonumber(stored[key] or 0)
  -- Written this way round no sum leaves the integers that a double holds exactly.
  if limit and amount >= 0 and counts[key] > limit - math.max(1, amount) then
    refused[#refused + 1] = index - 1
  elseif counts[key] > MAX_COUNT - amount then
    counts[key] = MAX_COUNT
  else
    counts[key] = math.max(0, counts[key] + amount)
  end
  used[index] = counts[key]
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
  add(index)
end
if #refused > 0 then
  return {before, refused}
end
for index = 1, #KEYS do
  write(index)
end
return {used, {}}
