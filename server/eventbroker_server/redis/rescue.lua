-- Move entries that were trimmed while they were pending into the group's retry stream, without their event: to claim
-- them where they are would forget them. Each stays with whom it is with, under its number. What has no row in
-- PostgreSQL is noted as adrift, so that it holds the checkpoint back. The retry stream is read in order, so what is
-- unread there is handed back.
-- Answers for each its number in the retry stream, or 0 if it is not the latest delivery of its event.
-- KEYS: state, extended, failing, queued, adrift, signals, then the streams: backfill, retry, those of types
-- ARGV: group, generation, process, nobody, then for each: index of its stream, id of its entry, consumer, number,
--       position
local group, retry = ARGV[1], KEYS[8]
local rescued, moved = {}, false
local known = redis.call('HGET', KEYS[1], 'generation') == ARGV[2] and not redis.pcall('XPENDING', retry, group).err
for i = 5, #ARGV, 5 do
  local key, id, consumer, position = KEYS[7 + ARGV[i]], ARGV[i + 1], ARGV[i + 2], ARGV[i + 4]
  local pending = known and redis.pcall('XPENDING', key, group, id, id, 1) or {}
  local number = 0
  if pending[1] and pending[1][2] == consumer and pending[1][4] == tonumber(ARGV[i + 3])
    and not redis.call('XRANGE', key, id, id)[1] then
    number = redis.call('HINCRBY', KEYS[1], 'retried', 1)
    local new = string.format('%.0f', number) .. '-' .. position
    local failed = redis.call('HGET', KEYS[4], position)
    redis.call('XADD', retry, new, 't', '', 'e', '', 'a', (failed or 0) + 1)
    while redis.call('XREADGROUP', 'GROUP', group, ARGV[4], 'COUNT', 100, 'STREAMS', retry, '>') do
      moved = true
    end
    redis.call('XCLAIM', retry, group, consumer, 0, new, 'IDLE', pending[1][3], 'RETRYCOUNT', ARGV[i + 3], 'JUSTID')
    redis.call('XACK', key, group, id)
    for _, notes in ipairs({KEYS[2], KEYS[3]}) do
      local note = redis.call('HGET', notes, id)
      if note then
        redis.call('HSET', notes, new, note)
        redis.call('HDEL', notes, id)
      end
    end
    if not failed then
      redis.call('ZADD', KEYS[5], position, position)
    end
  end
  rescued[#rescued + 1] = number
end
if moved then
  redis.call('HSET', KEYS[1], 'returned:' .. retry, 1)
  redis.call('XADD', KEYS[6], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[3], 'group', group)
end
return rescued
