-- Settle deliveries, each only if it is the latest of its event: pending with this consumer, under this number.
-- Answers for each: 1 done, 2 settled before, 3 outdated.
-- KEYS: state, attempts, extended, signals, then the streams
-- ARGV: group, generation, consumer, the process to tell (or empty), then for each: index of its stream, position, number
local group, consumer = ARGV[1], ARGV[3]
local outcomes = {}
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then
  for i = 5, #ARGV, 3 do
    outcomes[#outcomes + 1] = 3
  end
  return outcomes
end

-- What the consumer holds of each stream, between the lowest and the highest position that is asked for.
local low, high = {}, {}
for i = 5, #ARGV, 3 do
  local stream, position = ARGV[i], tonumber(ARGV[i + 1])
  low[stream] = math.min(low[stream] or position, position)
  high[stream] = math.max(high[stream] or position, position)
end
local held = {}
for stream, from in pairs(low) do
  held[stream] = {}
  local pending = redis.pcall('XPENDING', KEYS[5 + stream], group, string.format('%.0f-0', from),
    string.format('%.0f-0', high[stream]), 20000, consumer)
  for _, entry in ipairs(pending) do
    held[stream][entry[1]] = entry[4]
  end
end

local done, positions = {}, {}
for i = 5, #ARGV, 3 do
  local stream, id = ARGV[i], ARGV[i + 1] .. '-0'
  if held[stream][id] == tonumber(ARGV[i + 2]) then
    done[stream] = done[stream] or {}
    table.insert(done[stream], id)
    positions[#positions + 1] = ARGV[i + 1]
    held[stream][id] = 'settled here'
    outcomes[#outcomes + 1] = 1
  elseif held[stream][id] == 'settled here' then
    outcomes[#outcomes + 1] = 2
  else
    local other = redis.pcall('XPENDING', KEYS[5 + stream], group, id, id, 1)
    outcomes[#outcomes + 1] = (other.err or other[1]) and 3 or 2
  end
end

for stream, ids in pairs(done) do
  local key = KEYS[5 + stream]
  for from = 1, #ids, 1000 do
    redis.call('XACK', key, group, unpack(ids, from, math.min(from + 999, #ids)))
    if stream == '0' then -- the backfill belongs to this group alone
      redis.call('XDEL', key, unpack(ids, from, math.min(from + 999, #ids)))
    end
  end
end
if #positions > 0 then
  for _, key in ipairs({KEYS[2], KEYS[3]}) do
    if redis.call('EXISTS', key) == 1 then
      for from = 1, #positions, 1000 do
        redis.call('HDEL', key, unpack(positions, from, math.min(from + 999, #positions)))
      end
    end
  end
  if ARGV[4] ~= '' then
    redis.call('XADD', KEYS[4], 'MAXLEN', '~', 1000, '*', 'kind', 'settled', 'process', ARGV[4], 'group', group,
      'consumer', consumer, 'positions', table.concat(positions, ','))
  end
end
return outcomes
