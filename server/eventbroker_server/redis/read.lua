-- Take up to count entries for a consumer: first what was handed back, then new ones, an even share of each stream and
-- then whatever is there. Answers two lists: what was handed back, each with the index of its stream, the entry, the
-- number of the delivery and of the attempt; and new entries, by the index of their stream.
-- Answers -2 if the group is not of this generation or has lost a stream.
-- KEYS: state, attempts, then the streams, backfill first
-- ARGV: group, generation, consumer, nobody, count
local group, consumer, nobody, left = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then
  return -2
end
local returned, new = {}, {}

for i = 3, #KEYS do
  if left <= 0 then
    break
  end
  local back = redis.pcall('XPENDING', KEYS[i], group, '-', '+', left, nobody)
  if back.err then
    return -2
  end
  for _, pending in ipairs(back) do
    if not redis.call('XRANGE', KEYS[i], pending[1], pending[1])[1] then
      redis.call('HDEL', KEYS[1], 'generation') -- as in hand_back.lua
      return -2
    end
    local number = pending[4] + 1
    local position = string.match(pending[1], '^%d+')
    local attempt = 1 + (tonumber(redis.call('HGET', KEYS[2], position) or 0))
    local claimed = redis.call('XCLAIM', KEYS[i], group, consumer, 0, pending[1], 'RETRYCOUNT', number)
    if claimed[1] then
      returned[#returned + 1] = {i - 3, claimed[1], number, attempt}
      left = left - 1
    end
  end
end

local function take_new(i, count)
  local reply = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', KEYS[i], '>')
  if not reply then
    return true
  end
  if reply.err then
    return false
  end
  local entries = reply[1][2]
  new[#new + 1] = {i - 3, entries}
  left = left - #entries
  redis.call('HSET', KEYS[1], 'cursor:' .. KEYS[i], entries[#entries][1])
  return true
end

local share = math.ceil(left / (#KEYS - 2))
for _, even in ipairs({true, false}) do
  for i = 3, #KEYS do
    if left <= 0 then
      return {returned, new}
    end
    if not take_new(i, even and math.min(share, left) or left) then
      return (#returned > 0 or #new > 0) and {returned, new} or -2
    end
  end
end
return {returned, new}
