-- Remembers the size of a conversation, which only grows. It is a script so that two replicas that
-- ask at once get the same size.
--
-- KEYS  1 the pin
--
-- ARGV  1 the size of this request
--       2 how long it is kept (ms)
--       3... all sizes, from the smallest to the largest
--
-- Returns the larger of the remembered size and this one, and 1.
local rank = {}
for i = 3, #ARGV do
  rank[ARGV[i]] = i
end
local largest, remembered = ARGV[1], redis.call("GET", KEYS[1])
if remembered and (rank[remembered] or 0) > rank[largest] then
  largest = remembered
end
redis.call("SET", KEYS[1], largest, "PX", ARGV[2])
return { largest, 1 }
