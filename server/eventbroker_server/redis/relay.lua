-- Compare-and-append: add events at the consecutive positions first..last, if the shard is relayed to right before
-- first. Answers the head as it is then, or -1 if there is none. Repeating a call changes nothing.
-- KEYS: head, types, signals, added, then a stream for each distinct type of the batch
-- ARGV: first, process, distinct types joined by commas, then for each event: index of its stream, tenant, body
local first = tonumber(ARGV[1])
local head = redis.call('GET', KEYS[1])
if not head then
  return -1
end
if tonumber(head) ~= first - 1 then
  return tonumber(head)
end
local position, bytes = first - 1, 0
for i = 4, #ARGV, 3 do
  position = position + 1
  local added = redis.pcall('XADD', KEYS[4 + ARGV[i]], string.format('%.0f-0', position), 't', ARGV[i + 1], 'e', ARGV[i + 2])
  -- An entry that is there already is this very event, left by an append of which the head was lost: ids are positions.
  if type(added) == 'table' and added.err and not string.find(added.err, 'equal or smaller', 1, true) then
    return added
  end
  bytes = bytes + #ARGV[i + 2]
end
for event_type in string.gmatch(ARGV[3], '[^,]+') do
  redis.call('SADD', KEYS[2], event_type)
end
redis.call('SET', KEYS[1], string.format('%.0f', position))
redis.call('INCRBY', KEYS[4], string.format('%.0f', bytes)) -- trim.lua goes by this
redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', 'relayed', 'process', ARGV[2], 'types', ARGV[3])
return position
