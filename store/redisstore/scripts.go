package redisstore

import "github.com/redis/go-redis/v9"

// A record is one string. Its numbers are big-endian; 48 bits of milliseconds last until
// the year 10889.
//
//	bytes
//	 0– 5  random: the call that wrote it
//	 6–11  version
//	12–17  when it was written, milliseconds since 1970
//	18–23  when it expires, likewise
//	24–    value
//
// It is the value of a key r:KEY, which expires with it; or, of a member of a family, of a
// field of the hash f:FAMILY, which expires with its last.
const (
	operationSize = 6
	numberSize    = 6
	headerSize    = operationSize + 3*numberSize
)

const now = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

// Each script but that of a batch has one key. A record is at a key and a field, which is
// empty for one that is of no family. Numbers stay below 2^53, which Lua keeps exactly.

// touch writes what is there already, for replicate to wait for: that who asks again
// finds what an earlier attempt wrote does not mean that the replicas have it.
const touch = `
local function touch(key)
  local at = redis.call('PEXPIRETIME', key)
  if at > 0 then redis.call('PEXPIREAT', key, string.format('%.0f', at)) end
end
`

// A member that has expired is gone, whoever has not removed it yet.
const read = `
local function has_expired(record) return struct.unpack('>I6', record, 19) <= now end
local function read(key, field)
  if field == '' then return redis.call('GET', key) end
  local record = redis.call('HGET', key, field)
  return record and not has_expired(record) and record
end
`

// The key of a family is there for at least as long as each member, and for up to an hour
// more than one that was given more than a day. So it need not be moved at each refresh:
// what a record says of itself tells for how long its family is kept because of it.
const write = `
local function kept(written, expires)
  if expires - written <= 86400000 then return expires end
  return math.ceil(expires / 3600000) * 3600000
end
local function write(key, field, operation, version, expires, value, kept_already)
  local record = operation .. struct.pack('>I6I6I6', version, now, expires) .. value
  if field == '' then
    redis.call('SET', key, record, 'PXAT', expires)
  elseif tonumber(expires) <= now then
    redis.call('HDEL', key, field)
  else
    redis.call('HSET', key, field, record)
    local keep = kept(now, tonumber(expires))
    if keep > kept_already and keep > redis.call('PEXPIRETIME', key) then
      redis.call('PEXPIREAT', key, string.format('%.0f', keep))
    end
  end
  return record
end
`

// Whoever creates a member looks at a few others, whichever, and removes those that have
// expired: so these are never many more than a third of a family.
const create = touch + read + write + `
local function find(key, field)
  if field == '' then return redis.call('GETRANGE', key, 0, 11) end
  return string.sub(read(key, field) or '', 1, 12)
end
local function is_ours(present, operation)
  return string.sub(present, 1, 6) == operation and struct.unpack('>I6', present, 7) == 1
end
local function create(key, field, operation, expires, value)
  if tonumber(expires) <= now then return end
  write(key, field, operation, 1, expires, value, 0)
  if field == '' then return end
  local others = redis.call('HRANDFIELD', key, 4, 'WITHVALUES')
  for i = 1, #others, 2 do
    if has_expired(others[i + 1]) then redis.call('HDEL', key, others[i]) end
  end
end
`

// createScript: ARGV field, operation, expires, value. Answers 1, or 0 if the record exists.
var createScript = redis.NewScript(now + create + `
local present = find(KEYS[1], ARGV[1])
if #present == 12 then
  if not is_ours(present, ARGV[2]) then return 0 end
  touch(KEYS[1])
  return 1
end
create(KEYS[1], unpack(ARGV))
return 1`)

// swapScript: ARGV field, operation, version, expires, keep (1 or 0), value. Answers
// {outcome, record, now}: 1 swapped, 0 another version, -1 no record.
var swapScript = redis.NewScript(now + touch + read + write + `
local field, operation, wanted, expires, keep, value = unpack(ARGV)
local present = read(KEYS[1], field)
if not present then return {-1, '', now} end
local version, changed, until_now = struct.unpack('>I6I6I6', present, 7)
if now < changed then now = changed end
wanted = tonumber(wanted)
if version ~= wanted then
  touch(KEYS[1])
  if version == wanted + 1 and string.sub(present, 1, 6) == operation then return {1, present, now} end
  return {0, present, now}
end
if keep == '1' then value = string.sub(present, 25) end
return {1, write(KEYS[1], field, operation, version + 1, expires, value, kept(changed, until_now)), now}`)

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

// membersScript: ARGV cursor, and how many are wanted, about. Answers which process this is,
// the time, where to go on, and members and their records in turn.
var membersScript = redis.NewScript(now + `
local process = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
return {process, now, page[1], page[2]}`)

// batchScript: KEYS of records to create, of indexes, of records to read. ARGV operation,
// how many of the first and of the second; field, expires and value of each of the first,
// member and expires of each of the second, field of each of the third. Answers 0 and the records, or which one exists. What
// an earlier attempt created is not created again where it has been deleted since.
var batchScript = redis.NewScript(now + create + link + `
local operation, creations, links = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local again = false
for i = 1, creations do
  local present = find(KEYS[i], ARGV[3 * i + 1])
  if #present == 12 then
    if not is_ours(present, operation) then return {i} end
    again = true
  end
end
for i = 1, creations do
  local field, expires, value = unpack(ARGV, 3 * i + 1, 3 * i + 3)
  if again then touch(KEYS[i]) else create(KEYS[i], field, operation, expires, value) end
end
local at = 3 * creations + 4
for i = creations + 1, creations + links do
  link(KEYS[i], ARGV[at], ARGV[at + 1])
  at = at + 2
end
local answer = {0}
for i = creations + links + 1, #KEYS do
  answer[#answer + 1] = read(KEYS[i], ARGV[at])
  at = at + 1
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

// deleteScript and removeScript are DEL, and HDEL or ZREM, that write also when another
// attempt was first, so that replicate has something to wait for.
var deleteScript = redis.NewScript(`
if redis.call('DEL', KEYS[1]) == 0 then` + nothing + `end
return 1`)

// removeScript: ARGV command, field or member.
var removeScript = redis.NewScript(touch + `
if redis.call(ARGV[1], KEYS[1], ARGV[2]) == 1 then return 1 end
if redis.call('PTTL', KEYS[1]) == -2 then` + nothing + `else touch(KEYS[1]) end
return 1`)
