-- Applies groups of merged batches, each group as a whole or not at all. The script knows records, indexes and counters, and no rule of the
-- queue.
--
-- KEYS[1]  the last version that was given
-- KEYS[2]  the greatest time that was reported, in milliseconds since 1970 UTC
-- ARGV[1]  the greatest version that the caller has seen; a store that has given fewer versions has lost writes
-- ARGV[2]  the greatest time that was reported to the caller
-- ARGV[3]  how many versions all groups need together
-- ARGV[4]  the channel for hints
-- ARGV[5]  the groups in MessagePack. Each group is six lists: checks (key, "version:" or "" for absent, ...), writes (key, value, ...),
--          deletes (key, ...), moves (index, entries to remove, "0" and entry to insert ..., ...), increments (counter, amount, ...) and
--          topics; then the number of its batches. The amounts of a single batch are strings of digits, sums over several batches are
--          numbers. One packed argument takes much less time than several hundred arguments.
--
-- Returns the last version that was given, and then one reply for each group: 1 and the values of its counters before; 0 and the places of
-- the checks that do not hold; or the reason why the group cannot be tried. After a group of several batches that is not applied, the
-- remaining groups are not tried and have no reply. A record is stored as "version:value". Versions and large counters stay strings, as a
-- Lua number holds 53 bits.
--
-- A script that fails keeps what it wrote, so a group is written only after everything in it was read. Redis refuses a script (no memory, no
-- disk, a replica) at its first write, if at all.

local CHECKS, WRITES, DELETES, MOVES, INCREMENTS, TOPICS, BATCHES = 1, 2, 3, 4, 5, 6, 7
local GREATEST, LEAST = '9223372036854775807', '-9223372036854775808'

-- Numbers with at most this many digits can be calculated with.
local EXACT_DIGITS = 15

-- The most arguments of one command.
local MANY = 2000

-- Calls a command with all arguments of a list, in as few calls as possible.
local function in_parts(list, command)
  for first = 1, #list, MANY do
    command(unpack(list, first, math.min(first + MANY - 1, #list)))
  end
end

-- Adds a small number to a string of digits.
local function plus(digits, amount)
  local low = tonumber(string.sub(digits, -12)) + amount
  local high = tonumber(string.sub(digits, 1, -13)) or 0
  if low >= 1e12 then
    low, high = low - 1e12, high + 1
  end
  if high == 0 then return string.format('%.0f', low) end
  return string.format('%.0f%012.0f', high, low)
end

local function is_less(digits, than)
  if #digits ~= #than then return #digits < #than end
  return digits < than
end

local last_version = redis.call('GET', KEYS[1]) or '0'
if is_less(last_version, ARGV[1]) then
  return redis.error_reply('LOSTWRITES ' .. last_version .. ' versions were given, ' .. ARGV[1] .. ' were seen')
end

local is_reserved, given = false, 0

-- Reserves the versions for all groups before the first record is written, and stores the time.
local function reserve()
  if is_reserved then return end
  redis.call('INCRBY', KEYS[1], ARGV[3])
  local clock = redis.call('TIME')
  local told, stored = tonumber(ARGV[2]), tonumber(redis.call('GET', KEYS[2]) or '0')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  redis.call('SET', KEYS[2], string.format('%.0f', math.max(now, told, stored)))
  is_reserved = true
end

-- Returns 0 and the places of the checks that do not hold, or nil and the reason if a key does not hold a record.
local function failed(checks)
  local places, new = {0}, {}
  for at = 1, #checks, 2 do
    local key, expected = checks[at], checks[at + 1]
    if expected == '' then
      new[#new + 1] = key
    else
      local found = redis.pcall('GETRANGE', key, 0, #expected - 1)
      if type(found) == 'table' then return nil, found.err end
      if found ~= expected then places[#places + 1] = (at - 1) / 2 end
    end
  end
  local existing = 0
  in_parts(new, function(...) existing = existing + redis.call('EXISTS', ...) end)
  if existing > 0 then
    for at = 1, #checks, 2 do
      if checks[at + 1] == '' and redis.call('EXISTS', checks[at]) == 1 then places[#places + 1] = (at - 1) / 2 end
    end
  end
  return places
end

-- Returns 1 and the counters of a group, or nil and the reason if a key does not hold an index or a counter, or an amount cannot be added.
local function counters(group)
  local moves, increments, found = group[MOVES], group[INCREMENTS], {1}
  for at = 1, #moves, 3 do
    local size = redis.pcall('ZCARD', moves[at])
    if type(size) == 'table' then return nil, size.err end
  end
  for at = 1, #increments, 2 do
    local count = redis.pcall('GET', increments[at]) or '0'
    if type(count) == 'table' then return nil, count.err end
    if not string.find(count, '^%-?%d+$') then return nil, 'a counter is not a number' end
    if #count > EXACT_DIGITS and group[BATCHES] > 1 then return nil, 'a counter is large' end
    found[#found + 1] = count
  end
  return found
end

-- Adds to a counter up to its bounds. A counter that is 0 afterwards is deleted.
local function add(counter, digits)
  if type(redis.pcall('INCRBY', counter, digits)) == 'table' then
    redis.call('SET', counter, string.sub(digits, 1, 1) == '-' and LEAST or GREATEST)
  elseif redis.call('GET', counter) == '0' then
    redis.call('DEL', counter)
  end
end

-- Adds to counters: those with amounts as numbers all at once.
local function increment(increments, before)
  local kept, gone = {}, {}
  for at = 1, #increments, 2 do
    local counter, amount, count = increments[at], increments[at + 1], before[(at + 3) / 2]
    if type(amount) == 'string' then
      add(counter, amount)
    elseif count + amount == 0 then
      gone[#gone + 1] = counter
    else
      kept[#kept + 1] = counter
      kept[#kept + 1] = string.format('%.0f', count + amount)
    end
  end
  in_parts(kept, function(...) redis.call('MSET', ...) end)
  in_parts(gone, function(...) redis.call('DEL', ...) end)
end

local topics = {}

local function write(group, before)
  reserve()
  local writes, moves = group[WRITES], group[MOVES]
  for at = 2, #writes, 2 do
    given = given + 1
    writes[at] = plus(last_version, given) .. ':' .. writes[at]
  end
  in_parts(writes, function(...) redis.call('MSET', ...) end)
  in_parts(group[DELETES], function(...) redis.call('DEL', ...) end)
  for at = 1, #moves, 3 do
    in_parts(moves[at + 1], function(...) redis.call('ZREM', moves[at], ...) end)
    in_parts(moves[at + 2], function(...) redis.call('ZADD', moves[at], ...) end)
  end
  increment(group[INCREMENTS], before)
  for _, topic in ipairs(group[TOPICS]) do topics[#topics + 1] = topic end
end

-- Tries a group. Returns its reply, and whether it was applied.
local function try(group)
  local places, before, reason
  places, reason = failed(group[CHECKS])
  if not places then return reason end
  if #places > 1 then return places end
  before, reason = counters(group)
  if not before then return reason end
  write(group, before)
  return before, true
end

local replies = {}
for place, group in ipairs(cmsgpack.unpack(ARGV[5])) do
  local reply, is_applied = try(group)
  replies[place + 1] = reply
  if not is_applied and group[BATCHES] > 1 then break end
end
if #topics > 0 then redis.call('PUBLISH', ARGV[4], table.concat(topics, '\n')) end
replies[1] = is_reserved and plus(last_version, tonumber(ARGV[3])) or last_version
return replies
