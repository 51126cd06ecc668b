-- with lines.lua
-- Where an event is on its way to the consumers of a group. Answers a code, and of a delivery its consumer, how long it
-- has been there (ms) and until when it was extended (ms since 1970, or 0):
-- 0 the group is not of this generation, 1 not relayed, 2 history that is not fed yet, 3 to be read, 4 pending, 5 over,
-- 6 behind another of its aggregate (answered with its position).
-- KEYS: head, state, extended, backfill, retry, the stream of its type
-- ARGV: group, generation, position
local group, position = ARGV[1], tonumber(ARGV[3])
local state = redis.call('HMGET', KEYS[2], 'generation', 'joined', 'fed', 'lines')
if state[1] ~= ARGV[2] then
  return {0}
end

local function found(key, id)
  local pending = redis.pcall('XPENDING', key, group, id, id, 1)
  if pending.err then
    return {0}
  end
  if pending[1] then
    return {4, pending[1][2], pending[1][3], tonumber(redis.call('HGET', KEYS[3], id) or 0)}
  end
end

for _, entry in ipairs(redis.call('XRANGE', KEYS[5], '-', '+')) do -- what is settled leaves this stream
  if string.match(entry[1], '-(%d+)$') == ARGV[3] then
    return found(KEYS[5], entry[1]) or {3}
  end
end
local id = ARGV[3] .. '-0'
if state[4] then
  local before = lines_of(state[4]).turn_before(ARGV[3])
  if before and before ~= ARGV[3] then
    return {6, tonumber(before)}
  end
  if lines_of(state[4]).is_coming(ARGV[3]) or lines_of(state[4]).is_queued(ARGV[3]) then
    return {3}
  end
end
if tonumber(redis.call('GET', KEYS[1]) or -1) < position then
  return {1}
end
if state[4] or position <= tonumber(state[2]) then
  if position > tonumber(state[3]) then
    return {2}
  end
  local pending = found(KEYS[4], id)
  return pending or (redis.call('XRANGE', KEYS[4], id, id)[1] and {3}) or {5}
end
local pending = found(KEYS[6], id)
if pending then
  return pending
end
for _, info in ipairs(redis.pcall('XINFO', 'GROUPS', KEYS[6])) do
  if info[2] == group and tonumber(string.match(info[8], '^%d+')) >= position then
    return {5}
  end
end
return {3}
