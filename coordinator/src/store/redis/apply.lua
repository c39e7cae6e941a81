-- Applies independent batches, each as a whole or not at all. It knows records, indexes and counters, and no rule of the queue.
--
-- KEYS[1]  the last version that was given
-- KEYS[2]  the greatest time that was told, in milliseconds since 1970 UTC
-- ARGV[1]  the greatest version that the caller has seen; a store that has given fewer has lost some
-- ARGV[2]  the greatest time that the caller was told
-- ARGV[3]  versions that the batches need together
-- ARGV[4]  the channel for hints
-- ARGV[5]  the batches in MessagePack: of each seven lists, checks (key, "version:" or "" for absent, ...), writes (key, value, ...),
--          deletes (key, ...), removals (index, entry, ...), insertions (index, entry, ...), increments (counter, amount, ...) and
--          topics. As one argument they take much less time than as several hundred.
--
-- Returns the last version that was given, then for each batch its counters, 0 for a conflict, or the reason why it cannot be
-- tried. A record is stored as "version:value". Versions and counters stay strings: a Lua number holds 53 bits.
--
-- A script that fails keeps what it wrote, so nothing of a batch is written before everything in it was read. What Redis refuses by
-- itself (no memory, no disk, a replica) it refuses at a script's first write.

local CHECKS, WRITES, DELETES, REMOVALS, INSERTIONS, INCREMENTS, TOPICS = 1, 2, 3, 4, 5, 6, 7
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

-- What the records, indexes and counters will be, written once after the last batch: nothing but this script changes them while it
-- runs. A record that is deleted is false.
local records, moves, counts = {}, {}, {}

-- How the records began that were checked, with their versions; false for those that did not exist. Whatever is written was checked.
local beginnings = {}

-- How a record begins, or false; nothing and why if it is none.
local function beginning(key)
  local found = records[key]
  if found == nil then found = beginnings[key] end
  if found == nil then
    found = redis.pcall('GETRANGE', key, 0, 20)
    if type(found) == 'table' then return nil, found.err end
    if found == '' then found = false end
    beginnings[key] = found
  end
  return found
end

-- Nothing if the batch may be written; else 0 for a conflict, or what is wrong with the store.
local function obstacle(batch)
  local checks, new = batch[CHECKS], {}
  for at = 1, #checks, 2 do
    local key, expected = checks[at], checks[at + 1]
    if expected == '' and beginnings[key] == nil then
      new[#new + 1] = key
    else
      local found, reason = beginning(key)
      if found == nil then return reason end
      if expected == '' then
        if found then return 0 end
      elseif not found or string.sub(found, 1, #expected) ~= expected then
        return 0
      end
    end
  end
  if #new > 0 then
    if redis.call('EXISTS', unpack(new)) > 0 then return 0 end
    for _, key in ipairs(new) do beginnings[key] = false end
  end
  for section = REMOVALS, INSERTIONS do
    local list = batch[section]
    for at = 1, #list, 2 do
      local index = list[at]
      if not moves[index] then
        local found = redis.pcall('ZCARD', index)
        if type(found) == 'table' then return found.err end
        moves[index] = {}
      end
    end
  end
  local increments = batch[INCREMENTS]
  for at = 1, #increments, 2 do
    local counter = increments[at]
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

local function write(batch)
  reserve()
  local writes, deletes = batch[WRITES], batch[DELETES]
  for at = 1, #writes, 2 do records[writes[at]] = next_version() .. ':' .. writes[at + 1] end
  for _, key in ipairs(deletes) do records[key] = false end
  local removals, insertions = batch[REMOVALS], batch[INSERTIONS]
  for at = 1, #removals, 2 do moves[removals[at]][removals[at + 1]] = 'ZREM' end
  for at = 1, #insertions, 2 do moves[insertions[at]][insertions[at + 1]] = 'ZADD' end
  local increments, counters = batch[INCREMENTS], {}
  for at = 1, #increments, 2 do
    counters[#counters + 1] = increment(increments[at], increments[at + 1])
  end
  for _, topic in ipairs(batch[TOPICS]) do hint(topic) end
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

-- Writes strings, and deletes those of `gone`.
local function store(strings, gone)
  local kept, removed = {}, {}
  for key, string in pairs(strings) do
    if string == gone then
      removed[#removed + 1] = key
    else
      kept[#kept + 1] = key
      kept[#kept + 1] = string
    end
  end
  in_parts(removed, function(...) redis.call('DEL', ...) end)
  in_parts(kept, function(...) redis.call('MSET', ...) end)
end

local replies = {}
for place, batch in ipairs(cmsgpack.unpack(ARGV[5])) do
  replies[place + 1] = obstacle(batch) or write(batch)
end
if is_reserved then
  store(records, false)
  for index, entries in pairs(moves) do move(index, entries) end
  store(counts, '0')
end
if #topics > 0 then redis.call('PUBLISH', ARGV[4], table.concat(topics, '\n')) end
replies[1] = is_reserved and plus(last_version, tonumber(ARGV[3])) or last_version
return replies
