"""Load: wrk for HTTP/1.1 and for bytes over TCP, h2load for HTTP/2; what came out of one run of it."""

import dataclasses
import json
import pathlib
import re
import sys
import time

from lab import CLIENT, LOAD_CPU, SERVER, Failure, busy_seconds, wait_until

BODY = "m" * 128
BLOB_BYTES = 64 << 20
HTTP, HTTP2, BLOB = 8080, 8081, 8082
REPORT = pathlib.Path(__file__).parent / "report.lua"


@dataclasses.dataclass
class Result:
    requests: int
    seconds: float
    bytes: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    cpu_seconds: float = 0.0
    rss_mib: tuple = ()
    others_cores: float = 0.0


def start_backend(lab):
    """The application: a server that does as little as it can, on ports for HTTP/1.1, HTTP/2 and a large file."""
    (lab.dir / "blob").mkdir()
    with open(lab.dir / "blob" / "blob", "wb") as blob:
        blob.truncate(BLOB_BYTES)
    config = lab.dir / "backend.conf"
    config.write_text(
        f"""
daemon off; user root; worker_processes 1; pid {lab.dir}/backend.pid; error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h; default_type text/plain; sendfile on;
  server {{ listen {HTTP}; location / {{ return 200 "{BODY}"; }} }}
  server {{ listen {HTTP2} http2; location / {{ return 200 "{BODY}"; }} }}
  server {{ listen {BLOB}; root {lab.dir}/blob; }}
}}
""",
        encoding="utf-8",
    )
    backend = lab.start("backend", SERVER, LOAD_CPU, ["nginx", "-e", "stderr", "-c", config])
    wait_until("the backend", lambda: answers(lab, SERVER, "http", HTTP), backend)
    return backend


def answers(lab, pod, protocol, port):
    """Whether one request is answered as the backend answers it."""
    if protocol == "http2":
        out = lab.run(pod, ["h2load", "-n1", "-c1", "-m1", f"http://127.0.0.1:{port}/"])
        return out is not None and re.search(r"status codes: 1 2xx", out) is not None
    path, length = ("/blob", BLOB_BYTES) if protocol == "opaque" else ("/", len(BODY))
    probe = (
        "import http.client, sys\n"
        f"c = http.client.HTTPConnection('127.0.0.1', {port}, timeout=5)\n"
        f"c.request('GET', '{path}')\n"
        "r = c.getresponse()\n"
        f"sys.exit(not (r.status == 200 and len(r.read()) == {length}))\n"
    )
    return lab.run(pod, [sys.executable, "-I", "-c", probe]) is not None


def warm_up(lab, scenario, port, seconds):
    """Fills the pools, so that handshakes are not in the figure: HTTP/1.1 with all the connections any load has."""
    if seconds > 0:
        offer(lab, scenario, max(scenario.loads), port, seconds, ())


def measure(lab, scenario, connections, running, backend, seconds):
    """One run of load, with the CPU time that the proxies spent meanwhile and the memory they held."""
    family = [*running.proxies, backend]
    before, busy = [p.cpu_seconds() for p in family], busy_seconds()
    result, load_cpu = offer(lab, scenario, connections, running.port, seconds, running.proxies)
    spent, busy = [p.cpu_seconds() - b for p, b in zip(family, before)], busy_seconds() - busy
    result.cpu_seconds = sum(spent[:-1])
    result.others_cores = max(0.0, (busy - sum(spent) - load_cpu) / seconds)
    return result


def offer(lab, scenario, connections, port, seconds, proxies):
    url = f"http://127.0.0.1:{port}/"
    if scenario.protocol == "http2":
        command = ["h2load", "-t1", f"-c{connections}", f"-m{scenario.streams}", f"-D{seconds}", url]
    else:
        url += "blob" if scenario.protocol == "opaque" else ""
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", REPORT, url]
    load = lab.start("load", CLIENT, LOAD_CPU, command)
    deadline, rss, load_cpu = time.monotonic() + seconds + 20, [(0.0, 0.0)] * len(proxies), 0.0
    while load.child.poll() is None:
        if time.monotonic() > deadline:
            raise Failure(f"{command[0]} did not end")
        rss = [max(known, proxy.rss_mib()) for known, proxy in zip(rss, proxies)]
        try:
            load_cpu = load.cpu_seconds()
        except OSError:
            pass  # it has just ended
        time.sleep(0.1)
    lab.processes.remove(load)
    text = load.log.read_text(encoding="utf-8", errors="replace")
    if load.child.returncode != 0:
        raise Failure(f"{' '.join(map(str, command))} ended with {load.child.returncode}:\n{text}")
    result = of_h2load(text, seconds) if scenario.protocol == "http2" else of_wrk(text)
    if scenario.protocol == "opaque":
        result.p50_ms = result.p99_ms = None  # of a large file: says nothing
    result.rss_mib = tuple(rss)
    return result, load_cpu


def of_wrk(text):
    found = re.search(r"^report (\{.*\})$", text, re.MULTILINE)
    if not found:
        raise Failure(f"wrk printed no report:\n{text}")
    return Result(**json.loads(found[1]))


def of_h2load(text, seconds):
    counts = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    octets = re.search(r"traffic: .*?\((\d+)\) total", text)
    if not counts or not codes:
        raise Failure(f"h2load printed no summary:\n{text}")
    done, succeeded, failed = (int(counts[n]) for n in (1, 2, 3))
    errors = failed + sum(int(codes[n]) for n in (2, 3, 4)) + (done - succeeded - failed)
    # It knows no quantiles.
    return Result(succeeded, float(seconds), int(octets[1]) if octets else 0, errors, None, None)
