-- The lines of a group that is fed in turn. Not a script: it is put before those whose first line says so.
-- In a group that is ordered, the events of an aggregate stand in a line, and one of them at a time has the turn: until it
-- is settled or given up, also while it waits for another attempt. In a group that is fair, a tenant has so many slots:
-- what has the turn and finds none free waits for one; who waits for another attempt has none.
-- Keys: base .. ':turn'     hash: line to the position that has the turn
--       base .. ':behind'   sorted by text: line, NUL and position of those that wait for their turn
--       base .. ':slots'    hash: tenant to how many slots are taken
--       base .. ':queue'    sorted by text: tenant, NUL and position of those that wait for a slot
--       base .. ':lines'    hash: position to line, STX and tenant of all; empty where the group has none
--       base .. ':fed'      sorted: positions that are neither settled nor have a row in PostgreSQL
--       base .. ':released' sorted by since when (us): positions that are to be put into the retry stream
--       base .. ':later'    sorted by until when (ms): positions that have the turn and wait for another, which has a row
--       base .. ':held'     set: lines of which a dead event may hold back what follows: PostgreSQL tells
-- Whatever can be done for many at once is one command: each is written to the append-only file.
local SLOTS = 16

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function lines_of(base)
  local turn, behind, slots, queue = base .. ':turn', base .. ':behind', base .. ':slots', base .. ':queue'
  local lines, fed, released = base .. ':lines', base .. ':fed', base .. ':released'
  local waiting, held = base .. ':later', base .. ':held'
  local self = {let_go = false}

  local function member(line, position)
    return line .. '\0' .. string.format('%020.0f', position)
  end

  local function first(key, line)
    return redis.call('ZRANGEBYLEX', key, '[' .. line .. '\0', '(' .. line .. '\1', 'LIMIT', 0, 1)[1]
  end

  local function position_of(found)
    return string.format('%.0f', tonumber(string.sub(found, -20)))
  end

  local function parts(stands)
    return string.match(stands, '^(.*)\2(.*)$')
  end

  -- A command with the arguments after its key, 1,000 at a time.
  local function each(command, key, arguments)
    for from = 1, #arguments, 1000 do
      redis.call(command, key, unpack(arguments, from, math.min(from + 999, #arguments)))
    end
  end

  local function scored(members, score)
    local pairs = {}
    for number, name in ipairs(members) do
      pairs[2 * number - 1], pairs[2 * number] = score, name
    end
    return pairs
  end

  -- How the slots of tenants change in this step: written once, by `keep`.
  local taken, changed = {}, {}

  local function free_slots(tenant)
    if not taken[tenant] then
      taken[tenant] = tonumber(redis.call('HGET', slots, tenant) or 0)
    end
    return SLOTS - taken[tenant]
  end

  local to_release, to_queue = {}, {}

  -- A slot for what has the turn; without one it waits. Whether it got one.
  local function enter(position, tenant)
    if tenant == '' then
      return true
    end
    if free_slots(tenant) <= 0 then
      to_queue[#to_queue + 1] = member(tenant, position)
      return false
    end
    taken[tenant] = taken[tenant] + 1
    changed[tenant] = true
    return true
  end

  -- A slot is free: the next takes it.
  local function give_slot(tenant)
    if tenant == '' then
      return
    end
    local next = first(queue, tenant)
    if next then
      redis.call('ZREM', queue, next)
      to_release[#to_release + 1] = position_of(next)
    else
      free_slots(tenant)
      taken[tenant] = math.max(0, taken[tenant] - 1)
      changed[tenant] = true
    end
  end

  local function keep()
    each('ZADD', queue, scored(to_queue, 0))
    if #to_release > 0 then
      local time = redis.call('TIME')
      each('ZADD', released, scored(to_release, string.format('%.0f', time[1] * 1000000 + time[2])))
      self.let_go = true
    end
    to_release, to_queue = {}, {}
    local now, none = {}, {}
    for tenant in pairs(changed) do
      if taken[tenant] > 0 then
        now[#now + 1] = tenant
        now[#now + 1] = taken[tenant]
      else
        none[#none + 1] = tenant
      end
    end
    changed = {}
    each('HSET', slots, now)
    each('HDEL', slots, none)
  end

  -- How many wait for something else than a consumer.
  function self.length()
    return redis.call('ZCARD', behind) + redis.call('ZCARD', queue)
  end

  function self.releasable()
    return redis.call('ZCARD', released)
  end

  function self.is_fed(position)
    return redis.call('ZSCORE', fed, position)
  end

  function self.oldest()
    return tonumber(redis.call('ZRANGE', fed, 0, 0)[1])
  end

  -- Of those, the first.
  function self.unsettled(most)
    return redis.call('ZRANGE', fed, 0, most - 1)
  end

  -- Events of the history or the tail: a list of position, line, tenant and whether PostgreSQL is to be asked. Answers a
  -- table of those that may go at once.
  function self.feed(events)
    if #events == 0 then
      return {}
    end
    local stands, in_order, has = {}, {}, {}
    for number, event in ipairs(events) do
      stands[2 * number - 1], stands[2 * number] = event[1], event[2] .. '\2' .. event[3]
      in_order[2 * number - 1], in_order[2 * number] = event[1], event[1]
    end
    if events[1][2] ~= '' then
      for from = 1, #events, 1000 do
        local wanted = {}
        for number = from, math.min(from + 999, #events) do
          wanted[#wanted + 1] = events[number][2]
        end
        for number, position in ipairs(redis.call('HMGET', turn, unpack(wanted))) do
          has[from + number - 1] = position
        end
      end
    end
    local any_held = redis.call('EXISTS', held) == 1
    local given, after, go, mine = {}, {}, {}, {}
    for number, event in ipairs(events) do
      local position, line, tenant, ask = unpack(event)
      if line ~= '' and (has[number] or mine[line]) then
        after[#after + 1] = member(line, position)
      else
        if line ~= '' then
          mine[line] = true
          given[#given + 1] = line
          given[#given + 1] = position
        end
        if enter(position, tenant) then
          if ask or (any_held and redis.call('SISMEMBER', held, line) == 1) then
            to_release[#to_release + 1] = position
          else
            go[position] = true
          end
        end
      end
    end
    each('HSET', lines, stands)
    each('ZADD', fed, in_order)
    each('HSET', turn, given)
    each('ZADD', behind, scored(after, 0))
    keep()
    return go
  end

  -- What has the turn of a line gives it to one that goes before, unless it is out. Whether it did.
  local function give_way(has, line, tenant)
    if redis.call('ZREM', released, has) == 1 then
      give_slot(tenant)
    elseif redis.call('ZREM', waiting, has) == 0 and redis.call('ZREM', queue, member(tenant, has)) == 0 then
      return false
    end
    redis.call('ZADD', behind, 0, member(line, has))
    return true
  end

  local function take_turn(position, line, tenant)
    if line ~= '' then
      redis.call('ZREM', behind, member(line, position))
      redis.call('HSET', turn, line, position)
    end
    if enter(position, tenant) then
      to_release[#to_release + 1] = position
    end
  end

  -- An event whose next attempt is due. It goes before later ones, unless one of them is out.
  function self.line_up(position, line, tenant)
    redis.call('HSET', lines, position, line .. '\2' .. tenant)
    if redis.call('ZSCORE', released, position) or redis.call('ZSCORE', queue, member(tenant, position)) then
      return
    end
    redis.call('ZREM', waiting, position)
    local has = line ~= '' and redis.call('HGET', turn, line)
    if has and has ~= position and (tonumber(has) < tonumber(position) or not give_way(has, line, tenant)) then
      redis.call('ZADD', behind, 0, member(line, position))
      return
    end
    take_turn(position, line, tenant)
    keep()
  end

  -- It failed, and there is a row of that: it keeps its turn, and needs no slot for now.
  function self.recorded(position)
    redis.call('ZREM', fed, position)
    local stands = redis.call('HGET', lines, position)
    if stands then
      local _, tenant = parts(stands)
      give_slot(tenant)
      keep()
    end
  end

  -- These are settled or given up: the next of their lines have the turn, and others of their tenants the slots.
  local function leave(positions)
    local stands = redis.call('HMGET', lines, unpack(positions))
    local gone, ordered, known, left, empty, given = {}, {}, {}, {}, {}, {}
    for number, position in ipairs(positions) do
      if stands[number] then
        local line, tenant = parts(stands[number])
        gone[#gone + 1] = position
        if line ~= '' then
          ordered[#ordered + 1] = {position, line, tenant}
          known[#known + 1] = line
        end
        give_slot(tenant)
      end
    end
    if #gone == 0 then
      return
    end
    local anybody = redis.call('EXISTS', behind) == 1
    local has = #known > 0 and redis.call('HMGET', turn, unpack(known))
    for number, event in ipairs(ordered) do
      local position, line, tenant = unpack(event)
      local next = has[number] == position and anybody and first(behind, line)
      if has[number] ~= position then
        left[#left + 1] = member(line, position)
      elseif next then
        left[#left + 1] = next
        next = position_of(next)
        given[#given + 1] = line
        given[#given + 1] = next
        if enter(next, tenant) then
          to_release[#to_release + 1] = next
        end
      else
        empty[#empty + 1] = line
      end
    end
    each('HDEL', lines, gone)
    each('ZREM', fed, gone)
    each('ZREM', behind, left)
    each('HSET', turn, given)
    each('HDEL', turn, empty)
    keep()
  end

  function self.leave(positions)
    for from = 1, #positions, 1000 do
      leave({unpack(positions, from, math.min(from + 999, #positions))})
    end
  end

  -- PostgreSQL is to be asked of what follows these.
  function self.hold(positions)
    for _, position in ipairs(positions) do
      local stands = redis.call('HGET', lines, position)
      if stands then
        redis.call('SADD', held, (parts(stands)))
      end
    end
  end

  function self.any_held()
    return redis.call('EXISTS', held) == 1
  end

  -- Whether it is still to be brought, as of the moment that it was released; then it is not any more.
  function self.take(position, since)
    return redis.call('ZSCORE', released, position) == since and redis.call('ZREM', released, position) == 1
  end

  -- Nothing in PostgreSQL is before it.
  function self.free(position)
    local stands = redis.call('HGET', lines, position)
    if stands then
      redis.call('SREM', held, (parts(stands)))
    end
  end

  -- It was taken, and has to wait for one that goes before it: that has the turn, if it stands in the line. Otherwise it
  -- asks again in so many ms. Meanwhile it needs no slot.
  function self.later(position, ms)
    local stands = redis.call('HGET', lines, position)
    if not stands then
      return
    end
    local line, tenant = parts(stands)
    give_slot(tenant)
    local next = line ~= '' and first(behind, line)
    if next and tonumber(position_of(next)) < tonumber(position) then
      redis.call('ZADD', behind, 0, member(line, position))
      take_turn(position_of(next), line, tenant)
    else
      redis.call('ZADD', waiting, now_ms() + ms, position)
    end
    keep()
  end

  -- What has waited long enough asks again.
  function self.ask_again()
    for _, position in ipairs(redis.call('ZRANGEBYSCORE', waiting, '-inf', now_ms(), 'LIMIT', 0, 100)) do
      redis.call('ZREM', waiting, position)
      local stands = redis.call('HGET', lines, position)
      if stands then
        local _, tenant = parts(stands)
        if enter(position, tenant) then
          to_release[#to_release + 1] = position
        end
      end
    end
    keep()
  end

  -- Whether it is to be brought, or waits to be.
  function self.is_coming(position)
    return redis.call('ZSCORE', released, position) or redis.call('ZSCORE', waiting, position)
  end

  -- Whose turn it is in the line of an event; nil if it stands in none.
  function self.turn_before(position)
    local stands = redis.call('HGET', lines, position)
    local line = stands and parts(stands)
    return line and line ~= '' and redis.call('HGET', turn, line)
  end

  -- Whether it waits for another of its tenant.
  function self.is_queued(position)
    local stands = redis.call('HGET', lines, position)
    if not stands then
      return false
    end
    local _, tenant = parts(stands)
    return tenant ~= '' and redis.call('ZSCORE', queue, member(tenant, position))
  end

  function self.forget()
    redis.call('UNLINK', turn, behind, slots, queue, lines, fed, released, waiting, held)
  end

  return self
end
