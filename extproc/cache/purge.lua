-- Takes some answers of a tenant out of Redis, and returns how many there were.
--
-- KEYS: the index, the sizes. ARGV: 1 the most to take out, 2 the beginning of the names of answers.

local keys = redis.call("ZRANGE", KEYS[1], 0, tonumber(ARGV[1]) - 1)
for _, key in ipairs(keys) do
  redis.call("UNLINK", ARGV[2] .. key)
  redis.call("ZREM", KEYS[1], key)
  local freed = redis.call("HGET", KEYS[2], key)
  if freed then
    redis.call("HDEL", KEYS[2], key)
    redis.call("HINCRBY", KEYS[2], "total", -tonumber(freed))
  end
end
return #keys
