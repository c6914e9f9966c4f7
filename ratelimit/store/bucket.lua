-- A bucket: a counter that drains. RedisStore joins this file with reserve.lua and settle.lua.

-- The level of a bucket at `now`, and the time of that level. A clock that steps back drains nothing,
-- and nothing twice when it is right again: the time of a level never goes back.
local function level_of(value, drain, now)
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
