-- Set the head of a shard that has none, and answer the one there is. Streams that are there tell how far they were
-- relayed; without any, the shard begins at the position given.
-- KEYS: head, types
-- ARGV: position, what the names of streams begin with
local head = redis.call('GET', KEYS[1])
if head then
  return tonumber(head)
end
local last = -1
for _, event_type in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  local info = redis.pcall('XINFO', 'STREAM', ARGV[2] .. event_type) -- of this shard's slot; maybe deleted
  for at = 1, #info, 2 do
    if info[at] == 'last-generated-id' then -- also of what was trimmed
      last = math.max(last, tonumber(string.match(info[at + 1], '^%d+')))
    end
  end
end
redis.call('SET', KEYS[1], string.format('%.0f', last >= 0 and last or tonumber(ARGV[1])))
return tonumber(redis.call('GET', KEYS[1]))
