-- Keeps one answer of a tenant, and makes room for it.
--
-- KEYS: the generation, the index (by expiry), the sizes (by key), the answer.
-- ARGV 1 is the expected generation, and 2 a new one. 3 is the time now, 4 the time to live, in ms.
-- 5 is the most bytes of the tenant. 6 is the answer's key, 7 the answer, and 8 the beginning of the
-- names of answers.
--
-- All keys of a tenant have one hash tag, so they are in one slot of a Redis Cluster. The sizes hold
-- the sum of all as `total`; the keys of answers are hex digits.

local generation = redis.call("GET", KEYS[1]) or ""
if generation ~= ARGV[1] then
  return "purged"
end
local now, ttl, most, size = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), #ARGV[7]
if size > most then
  return "too_large"
end
if generation == "" then
  generation = ARGV[2]
  redis.call("SET", KEYS[1], generation)
end

local function forget(key)
  local freed = redis.call("HGET", KEYS[3], key)
  if freed then
    redis.call("UNLINK", ARGV[8] .. key)
    redis.call("HDEL", KEYS[3], key)
    redis.call("HINCRBY", KEYS[3], "total", -tonumber(freed))
  end
  redis.call("ZREM", KEYS[2], key)
end

for _, key in ipairs(redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now, "LIMIT", 0, 1000)) do
  forget(key)
end
-- A Redis without memory refuses a script's first write only, so none is made without need.
if redis.call("HEXISTS", KEYS[3], ARGV[6]) == 1 then
  forget(ARGV[6])
end
while tonumber(redis.call("HGET", KEYS[3], "total") or 0) + size > most do
  local oldest = redis.call("ZRANGE", KEYS[2], 0, 0)[1]
  if not oldest then
    redis.call("DEL", KEYS[3])
    break
  end
  forget(oldest)
end
redis.call("SET", KEYS[4], generation .. ARGV[7], "PX", ttl)
redis.call("HSET", KEYS[3], ARGV[6], size)
redis.call("HINCRBY", KEYS[3], "total", size)
redis.call("ZADD", KEYS[2], now + ttl, ARGV[6])
for _, name in ipairs({ KEYS[2], KEYS[3] }) do
  if redis.call("PTTL", name) < ttl then
    redis.call("PEXPIRE", name, ttl)
  end
end
return "stored"
