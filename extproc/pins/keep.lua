-- Remembers the version of a conversation. It is a script so that two replicas that ask at once
-- get the same version.
--
-- KEYS  1 the pin
--
-- ARGV  1 the version if none is remembered
--       2 how long it is kept (ms)
--       3... the versions with a weight
--
-- Returns the version, and 1 if it was remembered.
local remembered = redis.call("GET", KEYS[1])
for i = 3, #ARGV do
  if ARGV[i] == remembered then
    redis.call("PEXPIRE", KEYS[1], ARGV[2])
    return { remembered, 1 }
  end
end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return { ARGV[1], 0 }
