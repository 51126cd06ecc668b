-- Put events whose next attempt is due into the group's retry stream, each once for each attempt. Ids only grow inside a
-- stream, so an entry's id is a counter and then the position. Answers -2 if the group is not of this generation.
-- KEYS: state, queued, done, retry, signals
-- ARGV: group, generation, process, then for each: position, how many attempts failed, tenant, body
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then
  return -2
end
local added = 0
for i = 4, #ARGV, 4 do
  local position, failed = ARGV[i], ARGV[i + 1]
  if redis.call('HGET', KEYS[2], position) ~= failed and redis.call('HGET', KEYS[3], position) ~= failed then
    local id = string.format('%.0f', redis.call('HINCRBY', KEYS[1], 'retried', 1)) .. '-' .. position
    redis.call('XADD', KEYS[4], id, 't', ARGV[i + 2], 'e', ARGV[i + 3], 'a', failed + 1)
    redis.call('HSET', KEYS[2], position, failed)
    added = added + 1
  end
end
if added > 0 then
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[3], 'group', ARGV[1])
end
return added
