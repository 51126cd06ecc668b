-- with lines.lua
-- What becomes of events of a group that is fed in turn that may go, now that PostgreSQL was asked: 'go' into the retry
-- stream, 'over' when nobody is to get them any more, or 'later' when one with a row in PostgreSQL goes before. What is
-- not released any more, or was released again, somebody else has brought. Answers 1; -2 if the group is not of this
-- generation, or has another filter.
-- KEYS: state, queued, done, signals, retry
-- ARGV: group, generation, process, filter, ms until later, then for each: position, since when it is released, what, how
--       many attempts failed (empty without a row), tenant, body
local state = redis.call('HMGET', KEYS[1], 'generation', 'lines', 'filter')
if state[1] ~= ARGV[2] or state[3] ~= ARGV[4] then
  return -2
end
local lines = lines_of(state[2])
local count, any_held, over = (#ARGV - 5) / 6, lines.any_held(), {}
local number = redis.call('HINCRBY', KEYS[1], 'retried', count) - count
local added = false
for i = 6, #ARGV, 6 do
  local position, what, failed = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  number = number + 1
  if lines.take(position, ARGV[i + 1]) then
    if what == 'later' then
      lines.later(position, tonumber(ARGV[5]))
    elseif what == 'over' or (failed ~= '' and redis.call('HGET', KEYS[3], position) == failed) then
      over[#over + 1] = position
    else
      local id = string.format('%.0f', number) .. '-' .. position
      redis.call('XADD', KEYS[5], id, 't', ARGV[i + 4], 'e', ARGV[i + 5], 'a', (tonumber(failed) or 0) + 1)
      if failed ~= '' then
        redis.call('HSET', KEYS[2], position, failed)
      end
      if any_held then
        lines.free(position)
      end
      added = true
    end
  end
end
lines.leave(over)
if added or lines.let_go then
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[3], 'group', ARGV[1])
end
return 1
