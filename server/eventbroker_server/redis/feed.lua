-- Compare-and-append for a group's backfill: add entries of the history between fed and upto, if the backfill has come
-- to fed. Answers as open_group does; -2 if the group is not as the caller knows it.
-- KEYS: state, backfill
-- ARGV: generation, fed, upto, then for each entry: position, tenant, body
local state = redis.call('HMGET', KEYS[1], 'generation', 'joined', 'backfill_to', 'fed')
if state[1] ~= ARGV[1] or state[4] ~= ARGV[2] then
  return -2
end
for i = 4, #ARGV, 3 do
  redis.call('XADD', KEYS[2], ARGV[i] .. '-0', 't', ARGV[i + 1], 'e', ARGV[i + 2])
end
redis.call('HSET', KEYS[1], 'fed', ARGV[3])
return {tonumber(state[1]), tonumber(state[2]), tonumber(state[3]), tonumber(ARGV[3]), redis.call('XLEN', KEYS[2])}
