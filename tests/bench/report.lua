-- wrk's figures, exact and for a program to read. Defines no function that runs for each request.
done = function(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    'report {"requests": %d, "seconds": %.6f, "bytes": %.0f, "errors": %d, "p50_ms": %.3f, "p99_ms": %.3f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
