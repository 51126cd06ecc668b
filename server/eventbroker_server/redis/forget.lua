-- with lines.lua
-- Forget deliveries that failed, now that this is recorded. In a group that is fed in turn those of which more is to come
-- keep their turn, and the others end it.
-- KEYS: state, queued, failing, adrift, signals, then the streams: backfill, retry, those of types
-- ARGV: group, generation, failing, process, whether what is dead holds back what follows (1 or 0), then for each: index
--       of its stream, id of its entry, number, position, whether it is dead (1 or 0)
local group = ARGV[1]
local state = redis.call('HMGET', KEYS[1], 'generation', 'lines')
if state[1] ~= ARGV[2] then
  return 0
end
local lines, dead = state[2] and lines_of(state[2]), {}
for i = 6, #ARGV, 5 do
  local key, id, position = KEYS[6 + ARGV[i]], ARGV[i + 1], ARGV[i + 3]
  local pending = redis.pcall('XPENDING', key, group, id, id, 1)
  if not pending.err and pending[1] and pending[1][2] == ARGV[3] and pending[1][4] == tonumber(ARGV[i + 2]) then
    redis.call('XACK', key, group, id)
    redis.call('HDEL', KEYS[3], id)
    if ARGV[i] == '0' or ARGV[i] == '1' then -- these belong to this group alone
      redis.call('XDEL', key, id)
    end
    if ARGV[i] == '1' or lines then
      redis.call('HDEL', KEYS[2], position)
      redis.call('ZREM', KEYS[4], position)
    end
    if lines and ARGV[i + 4] == '0' then
      lines.recorded(position)
    elseif lines then
      dead[#dead + 1] = position
    end
  end
end
if lines then
  if ARGV[5] == '1' then
    lines.hold(dead)
  end
  lines.leave(dead)
end
if lines and lines.let_go then
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[4], 'group', group)
end
return 0
