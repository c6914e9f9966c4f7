-- Numbers, as all scripts write them. RedisStore joins this file with each script.

-- The largest count: numbers in Lua are doubles.
local MAX_COUNT = 9007199254740992

-- A whole number as text. Lua alone would write a large one as 9.007e+15.
local function text_of(number)
  return string.format('%.0f', number)
end
