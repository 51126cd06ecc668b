-- Change a group's filter by compare-and-set: join types after the head, leave others with all that is pending of them.
-- What open_group.lua and progress.lua noted of a stream changes in the same step, so that they take it for no loss.
-- Answers 1, or -2 if the filter is not the one expected, a type has appeared that the caller does not know, or the shard
-- has no head.
-- KEYS: head, types, state, then the streams to join, then those to leave
-- ARGV: group, expected filter, wanted filter, how many types there are in all, how many streams to join
local group, state = ARGV[1], KEYS[3]
local head = tonumber(redis.call('GET', KEYS[1]) or -1)
if head < 0 or redis.call('HGET', state, 'filter') ~= ARGV[2] or redis.call('SCARD', KEYS[2]) ~= tonumber(ARGV[4]) then
  return -2
end
local start = string.format('%.0f-0', math.max(head, tonumber(redis.call('HGET', state, 'joined'))))
for i = 4, #KEYS do
  local key = KEYS[i]
  redis.pcall('XGROUP', 'DESTROY', key, group)
  redis.call('HDEL', state, 'member:' .. key, 'cursor:' .. key)
  if i <= 3 + ARGV[5] then
    redis.call('XGROUP', 'CREATE', key, group, start, 'MKSTREAM')
    redis.call('HSET', state, 'member:' .. key, 1, 'cursor:' .. key, start)
  end
end
redis.call('HSET', state, 'filter', ARGV[3])
return 1
