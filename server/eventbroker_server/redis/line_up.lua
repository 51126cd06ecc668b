-- with lines.lua
-- Events of a group that is fed in turn whose next attempt is due: each stands in its line again, or keeps the turn that
-- it has. What is in the retry stream, or settled out of it, stays. A delivery that failed and was not forgotten since is
-- forgotten, as in requeue.lua. Answers those that the group is not fed up to, and that were left out; -2 if the group is
-- not of this generation.
-- KEYS: state, queued, done, failing, signals, then the streams: backfill, retry
-- ARGV: group, generation, process, failing, then for each: position, how many attempts failed, line, tenant if that
--       has slots, and of the delivery that failed: index of its stream (-1 for none), id of its entry, number
local group = ARGV[1]
local state = redis.call('HMGET', KEYS[1], 'generation', 'lines', 'fed')
if state[1] ~= ARGV[2] then
  return -2
end
local lines = lines_of(state[2])
local left_out = {}
for i = 5, #ARGV, 7 do
  local position, failed, stream, id = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 4]), ARGV[i + 5]
  if stream >= 0 then
    local left = redis.pcall('XPENDING', KEYS[6 + stream], group, id, id, 1)
    if not left.err and left[1] and left[1][2] == ARGV[4] and left[1][4] == tonumber(ARGV[i + 6]) then
      redis.call('XACK', KEYS[6 + stream], group, id)
      redis.call('XDEL', KEYS[6 + stream], id)
      redis.call('HDEL', KEYS[4], id)
      if stream == 1 then
        redis.call('HDEL', KEYS[2], position) -- a redriven event may come to as many attempts once more
      end
      lines.recorded(position)
    end
  end
  if tonumber(position) > tonumber(state[3]) then
    left_out[#left_out + 1] = tonumber(position) -- those before it in its line may not stand there yet
  elseif lines.is_fed(position) then
    redis.call('HSET', KEYS[2], position, failed) -- a seek brought it, too: one delivery does for both
  elseif redis.call('HGET', KEYS[2], position) ~= failed and redis.call('HGET', KEYS[3], position) ~= failed then
    lines.line_up(position, ARGV[i + 2], ARGV[i + 3])
  end
end
if lines.let_go then
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[3], 'group', group)
end
return left_out
