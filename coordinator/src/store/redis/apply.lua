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

-- Indexes and counters that were looked at: nothing but this script changes them while it runs.
local sound = {}

-- Nothing if the batch may be written; else 0 for a conflict, or what is wrong with the store.
local function obstacle(starts)
  for at = starts[1], starts[2] - 1, 2 do
    local found, expected = redis.pcall('GETRANGE', ARGV[at], 0, 20), ARGV[at + 1]
    if type(found) == 'table' then return found.err end
    local holds = expected == '' and found == '' or expected ~= '' and string.sub(found, 1, #expected) == expected
    if not holds then return 0 end
  end
  for at = starts[4], starts[6] - 1, 2 do
    local index = ARGV[at]
    if not sound[index] then
      local found = redis.pcall('ZCARD', index)
      if type(found) == 'table' then return found.err end
      sound[index] = true
    end
  end
  for at = starts[6], starts[7] - 1, 2 do
    local counter = ARGV[at]
    if not sound[counter] then
      local found = redis.pcall('GET', counter)
      if type(found) == 'table' then return found.err end
      if found and not string.find(found, '^%-?%d+$') then return 'a counter is not a number' end
      sound[counter] = true
    end
  end
end

local function increment(counter, amount)
  local sum = redis.pcall('INCRBY', counter, amount)
  if type(sum) == 'table' then
    redis.call('SET', counter, string.sub(amount, 1, 1) == '-' and LEAST or GREATEST)
  elseif sum == 0 then
    redis.call('DEL', counter)
    return '0'
  elseif math.abs(sum) < 1e15 then
    return string.format('%.0f', sum)
  end
  return redis.call('GET', counter)
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
  for at = starts[2], starts[3] - 1, 2 do
    redis.call('SET', ARGV[at], next_version() .. ':' .. ARGV[at + 1])
  end
  for at = starts[3], starts[4] - 1 do redis.call('DEL', ARGV[at]) end
  for at = starts[4], starts[5] - 1, 2 do redis.call('ZREM', ARGV[at], ARGV[at + 1]) end
  for at = starts[5], starts[6] - 1, 2 do redis.call('ZADD', ARGV[at], 0, ARGV[at + 1]) end
  local counters = {}
  for at = starts[6], starts[7] - 1, 2 do
    counters[#counters + 1] = increment(ARGV[at], ARGV[at + 1])
  end
  for at = starts[7], starts[8] - 1 do hint(ARGV[at]) end
  return counters
end

local replies, at = {}, 6
for batch = 1, tonumber(ARGV[5]) do
  local starts = sections(at)
  replies[batch + 1] = obstacle(starts) or write(starts)
  at = starts[8]
end
if #topics > 0 then redis.call('PUBLISH', ARGV[4], table.concat(topics, '\n')) end
replies[1] = is_reserved and plus(last_version, tonumber(ARGV[3])) or last_version
return replies
