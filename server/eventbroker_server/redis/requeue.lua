-- Put events whose next attempt is due into the group's retry stream, each once for each attempt. Ids only grow inside a
-- stream, so an entry's id is a counter and then the position. A delivery that failed and was not forgotten since is
-- forgotten in the same step: otherwise it could be recorded again, after this attempt was settled.
-- Answers 1; 0, with nothing done, if much is unread there; -2 if the group is not of this generation.
-- KEYS: state, queued, done, failing, signals, adrift, then the streams: backfill, retry, those of types
-- ARGV: group, generation, process, failing, most unread, then for each: position, how many attempts failed, tenant, body,
--       and of the delivery that failed: index of its stream (-1 for none), id of its entry, number
local group = ARGV[1]
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then
  return -2
end
local pending = redis.pcall('XPENDING', KEYS[8], group)
if pending.err then
  return -2
end
if redis.call('XLEN', KEYS[8]) - pending[1] >= tonumber(ARGV[5]) then
  return 0
end
local added = 0
for i = 6, #ARGV, 7 do
  local position, failed, stream, id = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 4]), ARGV[i + 5]
  if stream >= 0 then
    local left = redis.pcall('XPENDING', KEYS[7 + stream], group, id, id, 1)
    if not left.err and left[1] and left[1][2] == ARGV[4] and left[1][4] == tonumber(ARGV[i + 6]) then
      redis.call('XACK', KEYS[7 + stream], group, id)
      redis.call('HDEL', KEYS[4], id)
      if stream <= 1 then -- these belong to this group alone
        redis.call('XDEL', KEYS[7 + stream], id)
      end
      if stream == 1 then
        redis.call('HDEL', KEYS[2], position) -- a redriven event may come to as many attempts once more
      end
      redis.call('ZREM', KEYS[6], position)
    end
  end
  if redis.call('HGET', KEYS[2], position) ~= failed and redis.call('HGET', KEYS[3], position) ~= failed then
    local new = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'retried', 1)) .. '-' .. position
    redis.call('XADD', KEYS[8], new, 't', ARGV[i + 2], 'e', ARGV[i + 3], 'a', failed + 1)
    redis.call('HSET', KEYS[2], position, failed)
    added = added + 1
  end
end
if added > 0 then
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[3], 'group', group)
end
return 1
