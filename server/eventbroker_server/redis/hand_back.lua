-- Make deliveries free for any consumer of the group, each only if it is the latest of its event: they go to `nobody`,
-- keeping their number, so that the next hand-over counts up and outdates the old ack id. Then forget a consumer that
-- leaves, if it has nothing pending; deleting it earlier would delete its pending entries. Answers 1 or 0 for each.
-- KEYS: state, attempts, extended, signals, then the streams
-- ARGV: group, generation, process, nobody, failed (1 or 0), consumer that leaves (or empty),
--       then for each: index of its stream, position, consumer, number
local group, nobody = ARGV[1], ARGV[4]
local answers, freed = {}, false
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then
  for i = 7, #ARGV, 4 do
    answers[#answers + 1] = 0
  end
  return answers
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 7, #ARGV, 4 do
  local key, position = KEYS[5 + ARGV[i]], ARGV[i + 1]
  local id = position .. '-0'
  local pending = redis.pcall('XPENDING', key, group, id, id, 1)
  local mine = not pending.err and pending[1] and pending[1][2] == ARGV[i + 2] and pending[1][4] == tonumber(ARGV[i + 3])
  if mine and ARGV[5] == '1' and tonumber(redis.call('HGET', KEYS[3], position) or 0) > now then
    mine = false -- extended through another broker, of which the caller does not know yet
  end
  if mine and not redis.call('XRANGE', key, id, id)[1] then
    -- Somebody trimmed it while it was pending, and to claim it would forget it. Made anew, the group gets it again.
    redis.call('HDEL', KEYS[1], 'generation')
    mine = false
  end
  if mine then
    redis.call('XCLAIM', key, group, nobody, 0, id, 'RETRYCOUNT', ARGV[i + 3], 'JUSTID')
    redis.call('HDEL', KEYS[3], position)
    if ARGV[5] == '1' then
      redis.call('HINCRBY', KEYS[2], position, 1)
    end
    freed = true
  end
  answers[#answers + 1] = mine and 1 or 0
end
if ARGV[6] ~= '' then
  for i = 5, #KEYS do
    local pending = redis.pcall('XPENDING', KEYS[i], group, '-', '+', 1, ARGV[6])
    if not pending.err and not pending[1] then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[i], group, ARGV[6])
    end
  end
end
if freed then
  redis.call('HSET', KEYS[1], 'returned', 1) -- until somebody finds that nothing is left of it
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[3], 'group', group)
end
return answers
