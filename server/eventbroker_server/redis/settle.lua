-- with lines.lua
-- Settle deliveries, each only if it is the latest of its event: pending with this consumer, under this number.
-- Answers for each: 1 done, 2 settled before, 3 outdated.
-- KEYS: state, extended, signals, queued, done, adrift, then the streams: backfill, retry, those of types
-- ARGV: group, generation, consumer, the process to tell (or empty),
--       then for each: index of its stream, id of its entry, number, position
local group, consumer = ARGV[1], ARGV[3]
local outcomes = {}
local state = redis.call('HMGET', KEYS[1], 'generation', 'lines')
if state[1] ~= ARGV[2] then
  for i = 5, #ARGV, 4 do
    outcomes[#outcomes + 1] = 3
  end
  return outcomes
end

-- What the consumer holds of each stream, between the lowest and the highest id that is asked for.
local low, high = {}, {}
for i = 5, #ARGV, 4 do
  local stream, first = ARGV[i], tonumber(string.match(ARGV[i + 1], '^%d+'))
  low[stream] = math.min(low[stream] or first, first)
  high[stream] = math.max(high[stream] or first, first)
end
local held = {}
for stream, from in pairs(low) do
  held[stream] = {}
  local pending = redis.pcall('XPENDING', KEYS[7 + stream], group, string.format('%.0f', from),
    string.format('%.0f', high[stream]), 20000, consumer)
  for _, entry in ipairs(pending) do
    held[stream][entry[1]] = entry[4]
  end
end

local done, settled, positions, retried = {}, {}, {}, {}
for i = 5, #ARGV, 4 do
  local stream, id = ARGV[i], ARGV[i + 1]
  if held[stream][id] == tonumber(ARGV[i + 2]) then
    done[stream] = done[stream] or {}
    table.insert(done[stream], id)
    settled[#settled + 1] = id
    positions[#positions + 1] = ARGV[i + 3]
    if stream == '1' then
      retried[#retried + 1] = ARGV[i + 3]
    end
    held[stream][id] = 'settled here'
    outcomes[#outcomes + 1] = 1
  elseif held[stream][id] == 'settled here' then
    outcomes[#outcomes + 1] = 2
  else
    local other = redis.pcall('XPENDING', KEYS[7 + stream], group, id, id, 1)
    local moved = redis.call('ZSCORE', KEYS[6], ARGV[i + 3])
    outcomes[#outcomes + 1] = (other.err or other[1] or moved) and 3 or 2
  end
end

for stream, ids in pairs(done) do
  local key = KEYS[7 + stream]
  for from = 1, #ids, 1000 do
    redis.call('XACK', key, group, unpack(ids, from, math.min(from + 999, #ids)))
    if stream == '0' or stream == '1' then -- these belong to this group alone
      redis.call('XDEL', key, unpack(ids, from, math.min(from + 999, #ids)))
    end
  end
end
if state[2] then -- also what a seek brought may have a row
  retried = redis.call('EXISTS', KEYS[4]) == 1 and positions or {}
end
for _, position in ipairs(retried) do
  local failed = redis.call('HGET', KEYS[4], position)
  if failed then
    -- Its row in PostgreSQL is deleted later: until then nobody is to put it into the retry stream again.
    redis.call('HSET', KEYS[5], position, failed)
    redis.call('HDEL', KEYS[4], position)
  end
  redis.call('ZREM', KEYS[6], position)
end
if state[2] then
  local lines = lines_of(state[2])
  lines.leave(positions)
  if lines.let_go then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', 'returned', 'process', ARGV[4], 'group', group)
  end
end
if #settled > 0 then
  if redis.call('EXISTS', KEYS[2]) == 1 then
    for from = 1, #settled, 1000 do
      redis.call('HDEL', KEYS[2], unpack(settled, from, math.min(from + 999, #settled)))
    end
  end
  if ARGV[4] ~= '' then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', 'settled', 'process', ARGV[4], 'group', group,
      'consumer', consumer, 'positions', table.concat(positions, ','))
  end
end
return outcomes
