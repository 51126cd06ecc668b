-- with lines.lua
-- Join the streams of a group's types. If told to, make a group anew that is missing or of an earlier generation: live
-- after the head, history from the checkpoint to the head through a backfill stream of this generation. Answers
-- generation, joined_at, backfill_to, fed, how much of the backfill is unread, and of a group that is fed in turn what
-- feed_lines.lua answers; -1 if the shard has no head; -3 if the group is missing, of an earlier generation or has lost a
-- stream, and it is not to be made; the filter if it is another.
-- KEYS: head, state, extended, queued, done, failing, adrift, backfill and retry of the wanted generation, then the
--       streams of the types
-- ARGV: group, generation, checkpoint, make (1 or 0), filter (or empty), where the lines of a group are that is fed in
--       turn (or empty)
local group, generation, checkpoint = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local head = tonumber(redis.call('GET', KEYS[1]) or -1)
if head < 0 then
  return -1
end
local made_now = tonumber(redis.call('HGET', KEYS[2], 'generation') or -1) < generation
if made_now then
  if ARGV[4] == '0' then
    return -3
  end
  for _, old in ipairs(redis.call('HMGET', KEYS[2], 'backfill', 'retry')) do
    if old then
      redis.call('UNLINK', old) -- of this shard, so of this slot
    end
  end
  redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
  local joined = math.max(head, checkpoint)
  redis.call('HSET', KEYS[2], 'generation', generation, 'joined', joined, 'backfill_to', joined, 'fed', checkpoint,
    'backfill', KEYS[8], 'retry', KEYS[9])
  if ARGV[6] ~= '' then
    redis.call('HSET', KEYS[2], 'lines', ARGV[6])
    lines_of(ARGV[6]).forget()
  end
  redis.pcall('XGROUP', 'CREATE', KEYS[8], group, '0', 'MKSTREAM')
  redis.pcall('XGROUP', 'CREATE', KEYS[9], group, '0', 'MKSTREAM')
  for i = 10, #KEYS do
    redis.pcall('XGROUP', 'DESTROY', KEYS[i], group)
  end
end
if ARGV[5] ~= '' and redis.call('HSETNX', KEYS[2], 'filter', ARGV[5]) == 0 then
  local told = redis.call('HGET', KEYS[2], 'filter')
  if told ~= ARGV[5] then
    return told -- to join by an old filter would bring all of a type again that the group has left
  end
end
local state = redis.call('HMGET', KEYS[2], 'generation', 'joined', 'backfill_to', 'fed', 'backfill', 'retry')
local pending = redis.pcall('XPENDING', state[5], group)
if pending.err or redis.pcall('XPENDING', state[6], group).err then
  return -3
end
for i = 10, #KEYS do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[i], group, state[2] .. '-0', 'MKSTREAM')
  local joins = redis.call('HSETNX', KEYS[2], 'member:' .. KEYS[i], 1) == 1
  if not joins and not made.err then
    redis.call('XGROUP', 'DESTROY', KEYS[i], group) -- it was a member, and somebody destroyed that
    return -3
  end
  if joins and not made_now then
    local info = redis.call('XINFO', 'STREAM', KEYS[i])
    for at = 1, #info, 2 do
      info[info[at]] = info[at + 1]
    end
    if info['entries-added'] > info['length'] then
      -- Its beginning was trimmed before the group joined it. A group that is made now begins after the head.
      redis.call('HDEL', KEYS[2], 'generation')
      return -3
    end
  end
end
local unread = redis.call('XLEN', state[5]) - pending[1]
if ARGV[6] == '' then
  return {tonumber(state[1]), tonumber(state[2]), tonumber(state[3]), tonumber(state[4]), unread}
end
local lines = lines_of(ARGV[6])
return {tonumber(state[1]), tonumber(state[2]), head, tonumber(state[4]), unread, lines.length(), lines.releasable(),
  lines.oldest() or 0}
