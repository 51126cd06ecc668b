-- Take the group's next turn at feeding, one of a length after the other, whichever broker asks. One that nobody asked for
-- in time is made up for, and no more. Answers whether it is taken now (1 or 0), and in how many ms the next begins; -2 if
-- the group is not of this generation, or not fed up to there.
-- KEYS: state
-- ARGV: generation, fed, how long a turn is (ms)
local state = redis.call('HMGET', KEYS[1], 'generation', 'fed', 'turn')
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then
  return -2
end
local time, length = redis.call('TIME'), tonumber(ARGV[3])
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local at = math.max(tonumber(state[3] or now), now - length)
if at > now then
  return {0, at - now}
end
redis.call('HSET', KEYS[1], 'turn', string.format('%.0f', at + length))
return {1, math.max(0, at + length - now)}
