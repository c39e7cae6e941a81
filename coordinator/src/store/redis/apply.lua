-- Applies independent batches, each as a whole or not at all. It knows records, indexes and counters, and no rule of the queue.
--
-- KEYS[1]  the last version that was given
-- KEYS[2]  the greatest time that was told, in milliseconds since 1970 UTC
-- ARGV[1]  the greatest version that the caller has seen; a store that has given fewer has lost some
-- ARGV[2]  the greatest time that the caller was told
-- ARGV[3]  versions that the batches need together
-- ARGV[4]  the channel for hints
-- ARGV[5]  the number of batches; then for each of them seven lengths and the items:
--          checks (key, "version:" or "" for absent), writes (key, value), deletes (key), removals (index, entry),
--          insertions (index, entry), increments (counter, amount), topics
--
-- Returns the last version that was given, then for each batch its counters, 0 for a conflict, or the reason why it cannot be
-- tried. A record is stored as "version:value". Versions and counters stay strings: a Lua number holds 53 bits.
--
-- A script that fails keeps what it wrote, so a batch is written only after everything in it was read. What Redis refuses by
-- itself (no memory, no disk, a replica) it refuses at a script's first write.

local GREATEST, LEAST = '9223372036854775807', '-9223372036854775808'

-- Decimal digits plus a small number.
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

-- Takes the versions for all batches before the first record is written, and notes the time.
local function reserve()
  if is_reserved then return end
  redis.call('INCRBY', KEYS[1], ARGV[3])
  local clock = redis.call('TIME')
  local told, stored = tonumber(ARGV[2]), tonumber(redis.call('GET', KEYS[2]) or '0')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  redis.call('SET', KEYS[2], string.format('%.0f', math.max(now, told, stored)))
  is_reserved = true
end

local function next_version()
  given = given + 1
  return plus(last_version, given)
end

-- Where the sections of a batch begin, and where the next batch does.
local function sections(at)
  local widths, starts = {2, 2, 1, 2, 2, 2, 1}, {}
  local start = at + #widths
  for section, width in ipairs(widths) do
    starts[section] = start
    start = start + width * tonumber(ARGV[at + section - 1])
  end
  starts[#widths + 1] = start
  return starts
end

-- What the indexes and counters will be, written once after the last batch: nothing but this script changes them while it runs.
local moves, counts = {}, {}

-- How records begin that many batches check.
local beginnings = {}

-- How a record begins, with its version; nothing and why if it is none.
local function beginning(key)
  local found = beginnings[key]
  if not found then
    found = redis.pcall('GETRANGE', key, 0, 20)
    if type(found) == 'table' then return nil, found.err end
    beginnings[key] = found
  end
  return found
end

-- Nothing if the batch may be written; else 0 for a conflict, or what is wrong with the store.
local function obstacle(starts)
  local absent = {}
  for at = starts[1], starts[2] - 1, 2 do
    local expected = ARGV[at + 1]
    if expected == '' then
      absent[#absent + 1] = ARGV[at]
    else
      local found, reason = beginning(ARGV[at])
      if not found then return reason end
      if string.sub(found, 1, #expected) ~= expected then return 0 end
    end
  end
  if #absent > 0 and redis.call('EXISTS', unpack(absent)) > 0 then return 0 end
  for at = starts[4], starts[6] - 1, 2 do
    local index = ARGV[at]
    if not moves[index] then
      local found = redis.pcall('ZCARD', index)
      if type(found) == 'table' then return found.err end
      moves[index] = {}
    end
  end
  for at = starts[6], starts[7] - 1, 2 do
    local counter = ARGV[at]
    if not counts[counter] then
      local found = redis.pcall('GET', counter)
      if type(found) == 'table' then return found.err end
      if found and not string.find(found, '^%-?%d+$') then return 'a counter is not a number' end
      counts[counter] = found or '0'
    end
  end
end

-- The counter after its increment. What a Lua number does not hold exactly is left to Redis.
local function increment(counter, amount)
  local count = counts[counter]
  local sum
  if #count <= 15 and #amount <= 15 then
    sum = string.format('%.0f', count + amount)
  else
    redis.call('SET', counter, count)
    if type(redis.pcall('INCRBY', counter, amount)) == 'table' then
      sum = string.sub(amount, 1, 1) == '-' and LEAST or GREATEST
    else
      sum = redis.call('GET', counter)
    end
  end
  counts[counter] = sum
  return sum
end

local hinted, topics = {}, {}

local function hint(topic)
  if not hinted[topic] then
    hinted[topic] = true
    topics[#topics + 1] = topic
  end
end

local function write(starts)
  reserve()
  local records = {}
  for at = starts[2], starts[3] - 1, 2 do
    records[#records + 1] = ARGV[at]
    records[#records + 1] = next_version() .. ':' .. ARGV[at + 1]
    beginnings[ARGV[at]] = nil
  end
  for at = starts[3], starts[4] - 1 do beginnings[ARGV[at]] = nil end
  if #records > 0 then redis.call('MSET', unpack(records)) end
  if starts[3] < starts[4] then redis.call('DEL', unpack(ARGV, starts[3], starts[4] - 1)) end
  for at = starts[4], starts[5] - 1, 2 do moves[ARGV[at]][ARGV[at + 1]] = 'ZREM' end
  for at = starts[5], starts[6] - 1, 2 do moves[ARGV[at]][ARGV[at + 1]] = 'ZADD' end
  local counters = {}
  for at = starts[6], starts[7] - 1, 2 do
    counters[#counters + 1] = increment(ARGV[at], ARGV[at + 1])
  end
  for at = starts[7], starts[8] - 1 do hint(ARGV[at]) end
  return counters
end

-- Arguments of one command.
local MANY = 2000

-- Lets a command have all arguments of a list, as many at a time as it may.
local function in_parts(list, command)
  for first = 1, #list, MANY do
    command(unpack(list, first, math.min(first + MANY - 1, #list)))
  end
end

local function move(index, entries)
  local removed, inserted = {}, {}
  for entry, command in pairs(entries) do
    if command == 'ZREM' then
      removed[#removed + 1] = entry
    else
      inserted[#inserted + 1] = 0
      inserted[#inserted + 1] = entry
    end
  end
  in_parts(removed, function(...) redis.call('ZREM', index, ...) end)
  in_parts(inserted, function(...) redis.call('ZADD', index, ...) end)
end

local function count()
  local kept, gone = {}, {}
  for counter, count in pairs(counts) do
    if count == '0' then
      gone[#gone + 1] = counter
    else
      kept[#kept + 1] = counter
      kept[#kept + 1] = count
    end
  end
  in_parts(gone, function(...) redis.call('DEL', ...) end)
  in_parts(kept, function(...) redis.call('MSET', ...) end)
end

local replies, at = {}, 6
for batch = 1, tonumber(ARGV[5]) do
  local starts = sections(at)
  replies[batch + 1] = obstacle(starts) or write(starts)
  at = starts[8]
end
if is_reserved then
  for index, entries in pairs(moves) do move(index, entries) end
  count()
end
if #topics > 0 then redis.call('PUBLISH', ARGV[4], table.concat(topics, '\n')) end
replies[1] = is_reserved and plus(last_version, tonumber(ARGV[3])) or last_version
return replies
