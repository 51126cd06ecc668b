-- Take up to count of what was handed back for a consumer. Answers a list: the index of its stream, the entry, the number
-- of the delivery; and of one that was trimmed its id alone, which stays where it is. Answers -2 if the group is not of this generation or has lost a stream.
-- KEYS: state, then the streams, backfill first
-- ARGV: group, generation, consumer, nobody, count
local group, consumer, nobody, left = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then
  return -2
end
local taken = {}
for i = 2, #KEYS do
  local back = redis.pcall('XPENDING', KEYS[i], group, '-', '+', left + 1, nobody)
  if back.err then
    return -2
  end
  for _, pending in ipairs(back) do
    if left == 0 then
      return taken
    end
    if redis.call('XRANGE', KEYS[i], pending[1], pending[1])[1] then
      local number = pending[4] + 1
      local claimed = redis.call('XCLAIM', KEYS[i], group, consumer, 0, pending[1], 'RETRYCOUNT', number)
      taken[#taken + 1] = {i - 2, claimed[1], number}
    else
      taken[#taken + 1] = {i - 2, pending[1], pending[4]}
    end
    left = left - 1
  end
  redis.call('HDEL', KEYS[1], 'returned:' .. KEYS[i])
end
return taken
