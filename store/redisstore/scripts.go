package redisstore

import "github.com/redis/go-redis/v9"

// A record is one string: 8 random bytes that identify the call that wrote it, version,
// change and expiry in milliseconds as big-endian 64-bit integers, then the value.
const (
	operationSize = 8
	headerSize    = operationSize + 24
)

const now = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

// Each script but that of a batch has one key. Numbers stay below 2^53, which Lua keeps exactly.

// touch writes what is there already, for replicate to wait for: that who asks again
// finds what an earlier attempt wrote does not mean that the replicas have it.
const touch = `
local function touch(key)
  local left = redis.call('PTTL', key)
  if left > 0 then redis.call('PEXPIRE', key, left) end
end
`

const create = touch + `
local function is_ours(present, operation)
  return string.sub(present, 1, 8) == operation and struct.unpack('>I8', present, 9) == 1
end
local function create(key, operation, expires, value)
  if tonumber(expires) <= now then return end
  redis.call('SET', key, operation .. struct.pack('>I8I8I8', 1, now, tonumber(expires)) .. value, 'PXAT', expires)
end
`

// createScript: ARGV operation, expires, value. Answers 1, or 0 if the record exists.
var createScript = redis.NewScript(now + create + `
local present = redis.call('GETRANGE', KEYS[1], 0, 15)
if #present == 16 then
  if not is_ours(present, ARGV[1]) then return 0 end
  touch(KEYS[1])
  return 1
end
create(KEYS[1], ARGV[1], ARGV[2], ARGV[3])
return 1`)

// swapScript: ARGV operation, version, expires, keep (1 or 0), value. Answers
// {outcome, record, now}: 1 swapped, 0 another version, -1 no record.
var swapScript = redis.NewScript(now + touch + `
local present = redis.call('GET', KEYS[1])
if not present then return {-1, '', now} end
local version, changed = struct.unpack('>I8I8', present, 9)
if now < changed then now = changed end
local wanted = tonumber(ARGV[2])
if version ~= wanted then
  touch(KEYS[1])
  if version == wanted + 1 and string.sub(present, 1, 8) == ARGV[1] then return {1, present, now} end
  return {0, present, now}
end
local value = ARGV[5]
if ARGV[4] == '1' then value = string.sub(present, 33) end
local expires = tonumber(ARGV[3])
local record = ARGV[1] .. struct.pack('>I8I8I8', version + 1, now, expires) .. value
redis.call('SET', KEYS[1], record, 'PXAT', ARGV[3])
return {1, record, now}`)

// addScript: ARGV n, window in milliseconds.
var addScript = redis.NewScript(`
local sum = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return sum`)

// link adds to a sorted set of members by expiry, which goes when its last member does.
const link = `
local function link(key, member, expires)
  redis.call('ZADD', key, 'GT', expires, member)
  local dead = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, 100)
  if #dead > 0 then redis.call('ZREM', key, unpack(dead)) end
  local last = redis.call('ZRANGE', key, -1, -1, 'WITHSCORES')
  if #last > 0 then redis.call('PEXPIREAT', key, string.format('%.0f', last[2])) end
end
`

// linkScript: ARGV member, expires.
var linkScript = redis.NewScript(now + link + `
link(KEYS[1], ARGV[1], ARGV[2])
return 1`)

// linkedScript: ARGV expires and name of a member, or 0 and nothing, and how many are wanted.
// Answers the live members after it and their expiries in turn, found by halving: the
// member itself may be gone. Names are compared as Redis orders them, byte by byte; by
// what Lua compares texts is up to the locale.
var linkedScript = redis.NewScript(now + `
local expires, name = tonumber(ARGV[1]), ARGV[2]
local function greater(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end
local function after(rank)
  local member = redis.call('ZRANGE', KEYS[1], rank, rank, 'WITHSCORES')
  if #member == 0 then return true end
  local score = tonumber(member[2])
  return score > now and (score > expires or score == expires and greater(member[1], name))
end
local low, high, step = 0, 0, 1
while not after(high) do low, high, step = high + 1, high + step, 2 * step end
while low < high do
  local middle = math.floor((low + high) / 2)
  if after(middle) then high = middle else low = middle + 1 end
end
return redis.call('ZRANGE', KEYS[1], low, low + ARGV[3] - 1, 'WITHSCORES')`)

// batchScript: KEYS of records to create, of indexes, of records to read. ARGV operation,
// how many of the first and of the second, expires and value of each of the first, member
// and expires of each of the second. Answers 0 and the records, or which one exists. What
// an earlier attempt created is not created again where it has been deleted since.
var batchScript = redis.NewScript(now + create + link + `
local creations, links = tonumber(ARGV[2]), tonumber(ARGV[3])
local again = false
for i = 1, creations do
  local present = redis.call('GETRANGE', KEYS[i], 0, 15)
  if #present == 16 then
    if not is_ours(present, ARGV[1]) then return {i} end
    again = true
  end
end
for i = 1, creations do
  if again then touch(KEYS[i]) else create(KEYS[i], ARGV[1], ARGV[2 * i + 2], ARGV[2 * i + 3]) end
end
for i = creations + 1, creations + links do
  link(KEYS[i], ARGV[2 * i + 2], ARGV[2 * i + 3])
end
local answer = {0}
for i = creations + links + 1, #KEYS do
  answer[#answer + 1] = redis.call('GET', KEYS[i])
end
return answer`)

// appendScript: ARGV keep in milliseconds or -1, event. Answers the entry's id.
var appendScript = redis.NewScript(now + `
local keep = tonumber(ARGV[1])
if keep < 0 then return redis.call('XADD', KEYS[1], '*', 'e', ARGV[2]) end
local id = redis.call('XADD', KEYS[1], 'MINID', '=', string.format('%.0f', math.max(now - keep, 0)), '*', 'e', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return id`)

// pingScript writes, so Redis refuses it where writes are refused.
var pingScript = redis.NewScript(`
redis.call('SET', KEYS[1], 1, 'PX', 1000)
return 1`)

// nothing writes without leaving anything.
const nothing = `
redis.call('SET', KEYS[1], '')
redis.call('DEL', KEYS[1])
`

// deleteScript and unlinkScript are DEL and ZREM that write also when another attempt
// was first, so that replicate has something to wait for.
var deleteScript = redis.NewScript(`
if redis.call('DEL', KEYS[1]) == 0 then` + nothing + `end
return 1`)

// unlinkScript: ARGV member.
var unlinkScript = redis.NewScript(touch + `
if redis.call('ZREM', KEYS[1], ARGV[1]) == 1 then return 1 end
if redis.call('PTTL', KEYS[1]) == -2 then` + nothing + `else touch(KEYS[1]) end
return 1`)
