-- Give deliveries more time, fenced as in settle.lua. The pending list cannot hold a deadline in the future, so it is
-- noted beside it. Answers for each: 1 done, 2 settled before, 3 outdated.
-- KEYS: state, extended, signals, adrift, then the streams
-- ARGV: group, generation, consumer, the process to tell (or empty), milliseconds, then for each as in settle.lua
local group, consumer = ARGV[1], ARGV[3]
local outcomes, positions = {}, {}
local current = redis.call('HGET', KEYS[1], 'generation') == ARGV[2]
local now = redis.call('TIME')
local deadline = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[5])
for i = 6, #ARGV, 4 do
  local key, id = KEYS[5 + ARGV[i]], ARGV[i + 1]
  local pending = current and redis.pcall('XPENDING', key, group, id, id, 1) or {}
  if not current or pending.err then
    outcomes[#outcomes + 1] = 3
  elseif not pending[1] then
    outcomes[#outcomes + 1] = redis.call('ZSCORE', KEYS[4], ARGV[i + 3]) and 3 or 2
  elseif pending[1][2] ~= consumer or pending[1][4] ~= tonumber(ARGV[i + 2]) then
    outcomes[#outcomes + 1] = 3
  else
    redis.call('HSET', KEYS[2], id, deadline)
    positions[#positions + 1] = ARGV[i + 3]
    outcomes[#outcomes + 1] = 1
  end
end
if #positions > 0 and ARGV[4] ~= '' then
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', 1000, '*', 'kind', 'extended', 'process', ARGV[4], 'group', group,
    'consumer', consumer, 'positions', table.concat(positions, ','), 'seconds', ARGV[5] / 1000)
end
return outcomes
