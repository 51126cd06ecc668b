-- Bound the tail of a shard by age and size, whatever the groups do. A group that is overtaken, because something it has
-- not read goes, is made anew at its checkpoint: its history then comes from PostgreSQL. Answers the position up to which
-- the tail was trimmed, 0 if nothing was.
-- The tail is measured by marks: where the head was at a time, and how many bytes had been added until then. Each call
-- sets one, unless the last is near.
-- KEYS: head, types, added, tail, before
-- ARGV: seconds, bytes, what the names of streams begin with, what the names of groups' states begin with
local age, size = tonumber(ARGV[1]), tonumber(ARGV[2])
local head, total = redis.call('GET', KEYS[1]), tonumber(redis.call('GET', KEYS[3]) or 0)
if not head then
  return 0
end
local now = tonumber(redis.call('TIME')[1])
local last = redis.call('XREVRANGE', KEYS[4], '+', '-', 'COUNT', 1)[1]
if not last or (last[1] ~= head .. '-0' and (now - last[2][2] >= age / 100 or total - last[2][4] >= size / 100)) then
  redis.pcall('XADD', KEYS[4], head .. '-0', 'time', now, 'bytes', string.format('%.0f', total))
end

local floor
local before = tonumber(redis.call('GET', KEYS[5]) or 0) -- bytes that were added before what is kept
for _, mark in ipairs(redis.call('XRANGE', KEYS[4], '-', '+')) do
  if now - mark[2][2] < age and total - before <= size then
    break
  end
  floor, before = mark[1], tonumber(mark[2][4])
end
if not floor then
  return 0
end
for _, event_type in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local key = ARGV[3] .. event_type -- of this shard's slot
  for _, info in ipairs(redis.pcall('XINFO', 'GROUPS', key)) do -- an error, of a stream that somebody deleted, is empty
    if redis.call('XRANGE', key, '(' .. info[8], floor, 'COUNT', 1)[1] then
      redis.call('HDEL', ARGV[4] .. info[2], 'generation')
    end
  end
  redis.call('XTRIM', key, 'MINID', string.format('%.0f', string.match(floor, '^%d+') + 1))
end
redis.call('XTRIM', KEYS[4], 'MINID', string.format('%.0f', string.match(floor, '^%d+') + 1))
redis.call('SET', KEYS[5], string.format('%.0f', before))
return tonumber(string.match(floor, '^%d+'))
