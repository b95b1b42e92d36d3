-- What wrk sends: the body of a file; with a head that differs each time where it is asked for. Ends with a line of JSON.
local count, prefix, suffix = 0, nil, nil

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  wrk.method = "POST"
  wrk.body = file:read("*a")
  file:close()
  wrk.headers["Authorization"] = arguments[2]
  wrk.headers["Content-Type"] = "application/json"
  if arguments[3] == "differ" then
    wrk.headers["X-Request-Id"] = "@"
    prefix, suffix = wrk.format():match("^(.-)@(.*)$")
    request = function()
      count = count + 1
      return prefix .. string.format("req-%016x", count) .. suffix
    end
  end -- without a `request` of its own, wrk sends what it made once
end

function done(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "failed": %d, "p50_ms": %.4f, "p99_ms": %.4f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
