-- Compare-and-append for a group's backfill: add entries of the history between fed and upto, if the backfill has come
-- to fed. Answers as open_group does; -2 if the group is not as the caller knows it.
-- KEYS: state, backfill, signals
-- ARGV: group, generation, fed, upto, process, then for each entry: position, tenant, body
local state = redis.call('HMGET', KEYS[1], 'generation', 'joined', 'backfill_to', 'fed')
local waiting = redis.pcall('XPENDING', KEYS[2], ARGV[1])
if state[1] ~= ARGV[2] or state[4] ~= ARGV[3] or waiting.err then
  return -2
end
for i = 6, #ARGV, 3 do
  redis.call('XADD', KEYS[2], ARGV[i] .. '-0', 't', ARGV[i + 1], 'e', ARGV[i + 2])
end
redis.call('HSET', KEYS[1], 'fed', ARGV[4])
if #ARGV > 5 then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[5], 'group', ARGV[1])
end
return {tonumber(state[1]), tonumber(state[2]), tonumber(state[3]), tonumber(ARGV[4]),
  redis.call('XLEN', KEYS[2]) - waiting[1]}
