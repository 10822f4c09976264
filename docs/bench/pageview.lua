-- One page view after another: the page, which reads its session, and 70 requests that do not use it.
-- Argument: a file with one cookie on each line.
local cookies, paths, sent = {}, {"/read"}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do cookies[#cookies + 1] = line end
  for number = 2, 71 do paths[number] = number <= 61 and "/static/site.css" or "/untouched" end
end

function request()
  local path = paths[sent % 71 + 1]
  local cookie = cookies[math.floor(sent / 71) % #cookies + 1]
  sent = sent + 1
  return wrk.format("GET", path, {Cookie = cookie})
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    "\nBENCH %d %d %d %d %d\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
