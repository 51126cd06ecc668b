-- The lines of an ordered group: the events of an aggregate stand in a line, and one of them at a time has the turn. It
-- keeps it until it is settled or given up, also while it waits for another attempt. Not a script: it is put before those
-- whose first line says so.
-- Keys: base .. ':turn'     hash: line to the position that has the turn
--       base .. ':behind'   sorted by text: line, NUL and position of those that wait for their turn
--       base .. ':lines'    hash: position to line of all that stand in one
--       base .. ':fed'      sorted: positions that are neither settled nor have a row in PostgreSQL
--       base .. ':released' sorted by the time from which on: positions that have the turn, to be put into the retry stream
--       base .. ':held'     set: lines of which a dead event may hold back what follows: PostgreSQL tells
local function lines_of(base)
  local turn, behind, lines = base .. ':turn', base .. ':behind', base .. ':lines'
  local fed, released, held = base .. ':fed', base .. ':released', base .. ':held'
  local self = {let_go = false, behind = behind}

  local function member(line, position)
    return line .. '\0' .. string.format('%020.0f', position)
  end

  local function release(position)
    redis.call('ZADD', released, 0, position)
    self.let_go = true
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

  -- An event of the history or the tail: whether it may go at once. If PostgreSQL is to be asked, it is released instead.
  function self.feed(position, line, ask)
    redis.call('HSET', lines, position, line)
    redis.call('ZADD', fed, position, position)
    if redis.call('HSETNX', turn, line, position) == 0 then
      redis.call('ZADD', behind, 0, member(line, position))
      return false
    end
    if ask or redis.call('SISMEMBER', held, line) == 1 then
      release(position)
      return false
    end
    return true
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
    release(position)
  end

  -- It failed, and there is a row of that: it keeps its turn.
  function self.recorded(position)
    redis.call('ZREM', fed, position)
  end

  -- It is settled or given up: the next of its line has the turn.
  function self.leave(position)
    local line = redis.call('HGET', lines, position)
    if not line then
      return
    end
    redis.call('HDEL', lines, position)
    redis.call('ZREM', fed, position)
    redis.call('ZREM', released, position)
    if redis.call('HGET', turn, line) ~= position then
      redis.call('ZREM', behind, member(line, position))
      return
    end
    local next = redis.call('ZRANGEBYLEX', behind, '[' .. line .. '\0', '(' .. line .. '\1', 'LIMIT', 0, 1)[1]
    if next then
      redis.call('ZREM', behind, next)
      next = string.format('%.0f', tonumber(string.sub(next, -20)))
      redis.call('HSET', turn, line, next)
      release(next)
    else
      redis.call('HDEL', turn, line)
    end
  end

  function self.hold(position)
    local line = redis.call('HGET', lines, position)
    if line then
      redis.call('SADD', held, line)
    end
  end

  -- It has the turn and nothing in PostgreSQL is before it: it goes. Whether it was still to do so.
  function self.go(position)
    if redis.call('ZREM', released, position) == 0 then
      return false
    end
    redis.call('SREM', held, redis.call('HGET', lines, position))
    return true
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
