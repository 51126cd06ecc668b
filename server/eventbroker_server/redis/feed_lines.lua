-- with lines.lua
-- Compare-and-append for a group that is fed in turn, as in feed.lua: events between fed and upto stand in their lines,
-- and those that may go at once go into the backfill stream. Answers the state; -2 if the group is not
-- as the caller knows it.
-- KEYS: state, backfill, retry, signals, head
-- ARGV: group, generation, fed, upto, process, filter, then for each entry: position, tenant, body (empty if it
--       is to be brought later), line, its tenant if that has slots, and whether PostgreSQL is to be asked (1 or 0)
local state = redis.call('HMGET', KEYS[1], 'generation', 'joined', 'fed', 'lines', 'filter')
local waiting, retries = redis.pcall('XPENDING', KEYS[2], ARGV[1]), redis.pcall('XPENDING', KEYS[3], ARGV[1])
local head = tonumber(redis.call('GET', KEYS[5]) or -1)
if state[1] ~= ARGV[2] or state[3] ~= ARGV[3] or waiting.err or retries.err or head < 0 or state[5] ~= ARGV[6] then
  return -2
end
local lines = lines_of(state[4])
local events, added = {}, false
for i = 7, #ARGV, 6 do
  events[#events + 1] = {ARGV[i], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5] == '1'}
end
lines.ask_again()
local go = lines.feed(events)
for i = 7, #ARGV, 6 do
  if go[ARGV[i]] then
    redis.call('XADD', KEYS[2], ARGV[i] .. '-0', 't', ARGV[i + 1], 'e', ARGV[i + 2])
    added = true
  end
end
redis.call('HSET', KEYS[1], 'fed', ARGV[4])
if added or lines.let_go then
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[5], 'group', ARGV[1])
end
local unread = redis.call('XLEN', KEYS[2]) - waiting[1] + redis.call('XLEN', KEYS[3]) - retries[1]
return {tonumber(state[1]), tonumber(state[2]), head, tonumber(ARGV[4]), unread, lines.length(),
  lines.releasable(), lines.oldest() or 0}
