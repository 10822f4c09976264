-- One visitor after another sends the requests of a page view in their order.
-- Arguments: a file with a request on each line (status, path, form), one with a visitor on each (cookie, token),
-- and how many requests to leave out at the beginning.
local asks, visitors, sent = {}, {}, 0
local threads = {}

function setup(thread) threads[#threads + 1] = thread end

function init(arguments)
  for line in io.lines(arguments[1]) do
    local status, path, form = line:match("^(%d+) (%S+) ?(.*)$")
    asks[#asks + 1] = {failing = tonumber(status) >= 400, path = path, form = form}
  end
  for line in io.lines(arguments[2]) do
    local cookie, token = line:match("^(%S+) ?(.*)$")
    visitors[#visitors + 1] = {cookie = cookie, token = token}
  end
  sent = tonumber(arguments[3])
end

function request()
  local ask = asks[sent % #asks + 1]
  local visitor = visitors[math.floor(sent / #asks) % #visitors + 1]
  sent = sent + 1
  if ask.failing then expected = (expected or 0) + 1 end  -- global: read after the run
  if ask.form == "" then return wrk.format("GET", ask.path, {Cookie = visitor.cookie}) end
  local headers = {Cookie = visitor.cookie, ["Content-Type"] = "application/x-www-form-urlencoded"}
  return wrk.format("POST", ask.path, headers, ask.form .. "&csrf_token=" .. visitor.token)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    "\nBENCH %d %d %d %d %d %d %d\n", summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.timeout, errors.status, threads[1]:get("expected") or 0,
    latency:percentile(50), latency:percentile(99)))
end
