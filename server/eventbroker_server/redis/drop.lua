-- with lines.lua
-- Settle entries that the group does not want, which a consumer has just read.
-- KEYS: state, queued, adrift, signals, then the streams: backfill, retry, those of types
-- ARGV: group, generation, process, then for each: index of its stream, id of its entry, position
local state = redis.call('HMGET', KEYS[1], 'generation', 'lines')
if state[1] ~= ARGV[2] then
  return 0
end
local positions = {}
for i = 4, #ARGV, 3 do
  local key, position = KEYS[5 + ARGV[i]], ARGV[i + 2]
  redis.call('XACK', key, ARGV[1], ARGV[i + 1])
  if ARGV[i] == '0' or ARGV[i] == '1' then -- these belong to this group alone
    redis.call('XDEL', key, ARGV[i + 1])
    redis.call('HDEL', KEYS[2], position)
    redis.call('ZREM', KEYS[3], position)
  end
  positions[#positions + 1] = position
end
if state[2] then
  local lines = lines_of(state[2])
  lines.leave(positions)
  if lines.let_go then
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[3], 'group', ARGV[1])
  end
end
return 1
