-- Take deliveries from their consumers, each only if it is the latest of its event. They keep their number, so that the
-- next hand-over counts up and outdates the old ack id. They go to `nobody`, free for any consumer of the group, or to
-- `failing` until it is recorded that they failed. Then forget a consumer that leaves, if it has nothing pending;
-- deleting it earlier would delete its pending entries. Answers for each: 1 done, 2 settled before, 3 outdated, 4 trimmed
-- while it was pending: nothing is done, rescue.lua first.
-- KEYS: state, extended, signals, failing, adrift, then the streams: backfill, retry, those of types
-- ARGV: group, generation, process, whom they go to, whether that is nobody (1 or 0), whether to spare what was extended
--       (1 or 0), consumer that leaves (or empty), the process to tell (or empty), what is to be recorded (or empty),
--       then for each: index of its stream, id of its entry, consumer, number, position
local group, free = ARGV[1], ARGV[5] == '1'
local answers, freed, positions, owner = {}, false, {}, ''
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then
  for i = 10, #ARGV, 5 do
    answers[#answers + 1] = 3
  end
  return answers
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 10, #ARGV, 5 do
  local key, id = KEYS[6 + ARGV[i]], ARGV[i + 1]
  local pending = redis.pcall('XPENDING', key, group, id, id, 1)
  local answer = 3
  if not pending.err and not pending[1] then
    answer = redis.call('ZSCORE', KEYS[5], ARGV[i + 4]) and 3 or 2
  elseif not pending.err and pending[1][2] == ARGV[i + 2] and pending[1][4] == tonumber(ARGV[i + 3]) then
    answer = 1
  end
  if answer == 1 and ARGV[6] == '1' and tonumber(redis.call('HGET', KEYS[2], id) or 0) > now then
    answer = 3 -- extended through another broker, of which the caller does not know yet
  end
  if answer == 1 and not redis.call('XRANGE', key, id, id)[1] then
    answer = 4
  end
  if answer == 1 then
    redis.call('XCLAIM', key, group, ARGV[4], 0, id, 'RETRYCOUNT', ARGV[i + 3], 'JUSTID')
    redis.call('HDEL', KEYS[2], id)
    redis.call('HDEL', KEYS[4], id)
    if ARGV[9] ~= '' then
      redis.call('HSET', KEYS[4], id, ARGV[9])
    end
    if free then
      redis.call('HSET', KEYS[1], 'returned:' .. key, 1) -- until somebody finds that nothing is left of it
    end
    freed = true
    owner = ARGV[i + 2]
    positions[#positions + 1] = ARGV[i + 4]
  end
  answers[#answers + 1] = answer
end
if ARGV[7] ~= '' then
  for i = 6, #KEYS do
    local pending = redis.pcall('XPENDING', KEYS[i], group, '-', '+', 1, ARGV[7])
    if not pending.err and not pending[1] then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[i], group, ARGV[7])
    end
  end
end
if freed and free then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[3], 'group', group)
end
if freed and ARGV[8] ~= '' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', 'settled', 'process', ARGV[8], 'group', group,
    'consumer', owner, 'positions', table.concat(positions, ','))
end
return answers
