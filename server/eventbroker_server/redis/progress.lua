-- with lines.lua
-- How far a group has come: the head, the position up to which everything of the group is settled, and the position of
-- the oldest event that is not (or -1). If it is asked for, also a position up to which everything is settled but the
-- events that follow, in any order. Answers -2 if the group is not of this generation, has lost a stream, if the
-- shard has no head, or if the caller does not know all that the group reads: a type has appeared, or the filter is
-- another.
-- KEYS: head, state, types, adrift, then the streams, backfill first
-- ARGV: group, generation, how many types there are in all, the filter by which the caller joined (or empty),
--       how many events of each stream may be looked at to tell which are not settled (or 0)
local group = ARGV[1]
local state = redis.call('HMGET', KEYS[2], 'generation', 'joined', 'backfill_to', 'fed', 'filter', 'lines')
if ARGV[4] ~= '' and state[5] and state[5] ~= ARGV[4] then
  return -2
end
if state[1] ~= ARGV[2] or (not state[6] and redis.call('SCARD', KEYS[3]) ~= tonumber(ARGV[3])) then
  return -2
end
local head = tonumber(redis.call('GET', KEYS[1]) or -1)
if head < 0 then
  return -2
end
local oldest, through, open, most = -1, head, {}, tonumber(ARGV[5])

local function position_of(id)
  return tonumber(string.match(id, '^%d+'))
end

local function unsettled(id)
  local position = position_of(id)
  if oldest < 0 or position < oldest then
    oldest = position
  end
end

-- These are not settled, and maybe others after them.
local function list(ids)
  for _, id in ipairs(ids) do
    open[#open + 1] = position_of(id)
  end
  if #ids == most then
    through = math.min(through, open[#open])
  end
end

-- Where the group has come to in a stream is known to XINFO alone, which tells of all groups: so it is asked only if
-- there is something after what it last said.
local function first_unread(key, start)
  local cursor = redis.call('HGET', KEYS[2], 'cursor:' .. key) or start
  if not redis.call('XRANGE', key, '(' .. cursor, '+', 'COUNT', 1)[1] then
    return nil
  end
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    if info[2] == group then
      cursor = info[8]
    end
  end
  redis.call('HSET', KEYS[2], 'cursor:' .. key, cursor)
  local unread = redis.call('XRANGE', key, '(' .. cursor, '+', 'COUNT', 1)[1]
  return unread and unread[1]
end

for i = 5, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[i], group)
  if pending.err then
    return -2
  end
  if pending[1] > 0 then
    unsettled(pending[2])
    if most > 0 then
      local ids = redis.call('XPENDING', KEYS[i], group, '-', '+', most)
      for number, entry in ipairs(ids) do
        ids[number] = entry[1]
      end
      list(ids)
    end
  end
  local unread = first_unread(KEYS[i], i == 5 and '0-0' or state[2] .. '-0')
  if unread then
    unsettled(unread)
    through = math.min(through, position_of(unread) - 1)
  end
end
local adrift = redis.call('ZRANGE', KEYS[4], 0, 0)[1]
if adrift then
  unsettled(adrift)
  if most > 0 then
    list(redis.call('ZRANGE', KEYS[4], 0, most - 1))
  end
end
local settled = math.max(head, tonumber(state[2]))
if state[6] then
  local lines = lines_of(state[6])
  oldest = lines.oldest() or -1
  if most > 0 then
    through, open = head, {}
    list(lines.unsettled(most))
  end
end
if state[6] or tonumber(state[4]) < tonumber(state[3]) then
  settled = math.min(settled, tonumber(state[4])) -- what is not fed is not settled
  through = math.min(through, tonumber(state[4]))
end
if oldest >= 0 then
  settled = math.min(settled, oldest - 1)
end
if most == 0 then
  return {head, settled, oldest}
end
return {head, settled, oldest, through, open}
