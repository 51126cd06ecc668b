-- Forget deliveries that failed, now that this is recorded.
-- KEYS: state, queued, failing, adrift, then the streams: backfill, retry, those of types
-- ARGV: group, generation, failing, then for each: index of its stream, id of its entry, number, position
local group = ARGV[1]
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then
  return 0
end
for i = 4, #ARGV, 4 do
  local key, id = KEYS[5 + ARGV[i]], ARGV[i + 1]
  local pending = redis.pcall('XPENDING', key, group, id, id, 1)
  if not pending.err and pending[1] and pending[1][2] == ARGV[3] and pending[1][4] == tonumber(ARGV[i + 2]) then
    redis.call('XACK', key, group, id)
    redis.call('HDEL', KEYS[3], id)
    if ARGV[i] == '0' or ARGV[i] == '1' then -- these belong to this group alone
      redis.call('XDEL', key, id)
    end
    if ARGV[i] == '1' then
      redis.call('HDEL', KEYS[2], ARGV[i + 3])
      redis.call('ZREM', KEYS[4], ARGV[i + 3])
    end
  end
end
return 0
