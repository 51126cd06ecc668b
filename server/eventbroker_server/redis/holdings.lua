-- What is pending for at least `idle` ms: with one consumer, or with any (but nobody) and past every extension.
-- Each: index of its stream, id, consumer, number. Answers -2 if the group is not of this generation.
-- KEYS: state, extended, then the streams
-- ARGV: group, generation, consumer (or empty), idle, most, nobody, failing
local group, consumer, idle = ARGV[1], ARGV[3], tonumber(ARGV[4])
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[2] then
  return -2
end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local found = {}
for i = 3, #KEYS do
  local from = '-'
  repeat
    local page
    if consumer ~= '' then
      page = redis.pcall('XPENDING', KEYS[i], group, 'IDLE', idle, from, '+', 1000, consumer)
    else
      page = redis.pcall('XPENDING', KEYS[i], group, 'IDLE', idle, from, '+', 1000)
    end
    if page.err then
      return -2
    end
    for _, pending in ipairs(page) do
      local wanted = consumer ~= ''
      if not wanted and pending[2] ~= ARGV[6] and pending[2] ~= ARGV[7] then
        wanted = tonumber(redis.call('HGET', KEYS[2], pending[1]) or 0) <= ms
      end
      if wanted then
        found[#found + 1] = {i - 3, pending[1], pending[2], pending[4]}
      end
      from = '(' .. pending[1]
    end
  until #page < 1000 or #found >= tonumber(ARGV[5])
end
return found
