-- The lines of an ordered group: the events of an aggregate stand in a line, and one of them at a time has the turn. It
-- keeps it until it is settled or given up, also while it waits for another attempt. Not a script: it is put before those
-- whose first line says so.
-- Keys: base .. ':turn'     hash: line to the position that has the turn
--       base .. ':behind'   sorted by text: line, NUL and position of those that wait for their turn
--       base .. ':lines'    hash: position to line of all that stand in one
--       base .. ':fed'      sorted: positions that are neither settled nor have a row in PostgreSQL
--       base .. ':released' sorted by the time from which on: positions that have the turn, to be put into the retry stream
--       base .. ':held'     set: lines of which a dead event may hold back what follows: PostgreSQL tells
-- Whatever can be done for many at once is one command: each is written to the append-only file.
local function lines_of(base)
  local turn, behind, lines = base .. ':turn', base .. ':behind', base .. ':lines'
  local fed, released, held = base .. ':fed', base .. ':released', base .. ':held'
  local self = {let_go = false}

  local function member(line, position)
    return line .. '\0' .. string.format('%020.0f', position)
  end

  -- A command with the arguments after its key, 1,000 at a time.
  local function each(command, key, arguments)
    for from = 1, #arguments, 1000 do
      redis.call(command, key, unpack(arguments, from, math.min(from + 999, #arguments)))
    end
  end

  local function release(positions)
    local scored = {}
    for _, position in ipairs(positions) do
      scored[#scored + 1] = 0
      scored[#scored + 1] = position
    end
    each('ZADD', released, scored)
    self.let_go = self.let_go or #positions > 0
  end

  function self.length()
    return redis.call('ZCARD', behind)
  end

  function self.releasable(now)
    return redis.call('ZCOUNT', released, '-inf', now)
  end

  function self.is_fed(position)
    return redis.call('ZSCORE', fed, position)
  end

  function self.oldest()
    return tonumber(redis.call('ZRANGE', fed, 0, 0)[1])
  end

  -- Events of the history or the tail, at most 500: a list of position, line and whether PostgreSQL is to be asked.
  -- Answers a table of those that may go at once.
  function self.feed(events)
    local named, scored, wanted = {}, {}, {}
    for number, event in ipairs(events) do
      named[2 * number - 1], named[2 * number] = event[1], event[2]
      scored[2 * number - 1], scored[2 * number] = event[1], event[1]
      wanted[number] = event[2]
    end
    if #events == 0 then
      return {}
    end
    local has, any_held = redis.call('HMGET', turn, unpack(wanted)), redis.call('EXISTS', held) == 1
    local taken, given, waiting, to_ask, go = {}, {}, {}, {}, {}
    for number, event in ipairs(events) do
      local position, line = event[1], event[2]
      if has[number] or taken[line] then
        waiting[#waiting + 1] = 0
        waiting[#waiting + 1] = member(line, position)
      else
        taken[line] = true
        given[#given + 1] = line
        given[#given + 1] = position
        if event[3] or (any_held and redis.call('SISMEMBER', held, line) == 1) then
          to_ask[#to_ask + 1] = position
        else
          go[position] = true
        end
      end
    end
    each('HSET', lines, named)
    each('ZADD', fed, scored)
    each('HSET', turn, given)
    each('ZADD', behind, waiting)
    release(to_ask)
    return go
  end

  -- An event whose next attempt is due. It goes before later ones, unless one of them is out.
  function self.line_up(position, line)
    redis.call('HSET', lines, position, line)
    local has = redis.call('HGET', turn, line)
    if has and has ~= position then
      if tonumber(has) < tonumber(position) or not redis.call('ZSCORE', released, has) then
        redis.call('ZADD', behind, 0, member(line, position))
        return
      end
      redis.call('ZREM', released, has)
      redis.call('ZADD', behind, 0, member(line, has))
    end
    redis.call('ZREM', behind, member(line, position))
    redis.call('HSET', turn, line, position)
    release({position})
  end

  -- It failed, and there is a row of that: it keeps its turn.
  function self.recorded(position)
    redis.call('ZREM', fed, position)
  end

  -- These are settled or given up: the next of their lines have the turn.
  local function leave(positions)
    local stands = redis.call('HMGET', lines, unpack(positions))
    local gone, known = {}, {}
    for number, position in ipairs(positions) do
      if stands[number] then
        gone[#gone + 1] = position
        known[#known + 1] = stands[number]
      end
    end
    if #gone == 0 then
      return
    end
    local has, anybody = redis.call('HMGET', turn, unpack(known)), self.length() > 0
    local left, empty, given, nexts = {}, {}, {}, {}
    for number, position in ipairs(gone) do
      local line = known[number]
      if has[number] ~= position then
        left[#left + 1] = member(line, position)
      else
        local next = anybody
          and redis.call('ZRANGEBYLEX', behind, '[' .. line .. '\0', '(' .. line .. '\1', 'LIMIT', 0, 1)[1]
        if next then
          left[#left + 1] = next
          next = string.format('%.0f', tonumber(string.sub(next, -20)))
          nexts[#nexts + 1] = next
          given[#given + 1] = line
          given[#given + 1] = next
        else
          empty[#empty + 1] = line
        end
      end
    end
    each('HDEL', lines, gone)
    each('ZREM', fed, gone)
    each('ZREM', behind, left)
    each('HSET', turn, given)
    each('HDEL', turn, empty)
    release(nexts)
  end

  function self.leave(positions)
    for from = 1, #positions, 1000 do
      leave({unpack(positions, from, math.min(from + 999, #positions))})
    end
  end

  -- PostgreSQL is to be asked of what follows these.
  function self.hold(positions)
    for _, position in ipairs(positions) do
      local line = redis.call('HGET', lines, position)
      if line then
        redis.call('SADD', held, line)
      end
    end
  end

  -- Whether it was still to be brought; it is not any more.
  function self.take(position)
    return redis.call('ZREM', released, position) == 1
  end

  -- Nothing in PostgreSQL is before it.
  function self.free(position)
    redis.call('SREM', held, redis.call('HGET', lines, position))
  end

  function self.any_held()
    return redis.call('EXISTS', held) == 1
  end

  function self.is_released(position)
    return redis.call('ZSCORE', released, position)
  end

  function self.later(position, at)
    redis.call('ZADD', released, 'XX', at, position)
  end

  -- Whose turn it is in the line of an event; nil if it stands in none.
  function self.turn_before(position)
    local line = redis.call('HGET', lines, position)
    return line and redis.call('HGET', turn, line)
  end

  function self.forget()
    redis.call('UNLINK', turn, behind, lines, fed, released, held)
  end

  return self
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
