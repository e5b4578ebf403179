"""The laboratory: two pods as network namespaces, the processes in them, and the surety that all of it goes away.

Only processes started here are ended, each by its own process id, and only namespaces made here are removed.
"""

import http.client
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

CLIENT, SERVER = "client", "server"
ADDRESS = {CLIENT: "10.199.77.1", SERVER: "10.199.77.2"}
LOAD_CPU, PROXY_CPU = 0, 1
START_DEADLINE_S = 15
PREFIX = "mesh-bench-"


class Failure(Exception):
    """Something that ends the run, told to the person in one line."""


class Lab:
    """Made on entry, gone on exit. `dir` is where every configuration file, socket and log of the run lives."""

    def __enter__(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
        self.names = {pod: f"{PREFIX}{os.getpid()}-{pod}" for pod in (CLIENT, SERVER)}
        self.processes = []
        try:
            remove_leftovers()
            for name in self.names.values():
                ip("netns", "add", name)
            ends = {pod: f"mb{os.getpid() % 10**7}{pod[0]}" for pod in self.names}
            ip("link", "add", ends[CLIENT], "type", "veth", "peer", "name", ends[SERVER])
            for pod, name in self.names.items():
                ip("link", "set", ends[pod], "netns", name)
                ip("-n", name, "address", "add", ADDRESS[pod] + "/24", "dev", ends[pod])
                ip("-n", name, "link", "set", ends[pod], "up")
                ip("-n", name, "link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.end()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def start(self, name, pod, cpu, command):
        """Starts a process in a pod, on one CPU; its output goes to a log that is shown if it fails."""
        process = Process(name, self.inside(pod, cpu, command), self.dir / f"{name}.log")
        self.processes.append(process)
        return process

    def run(self, pod, command, cpu=LOAD_CPU, timeout=60):
        """Runs a short command in a pod to its end and returns its standard output, or None if it failed."""
        done = subprocess.run(self.inside(pod, cpu, command), capture_output=True, text=True, timeout=timeout, check=False)
        return done.stdout if done.returncode == 0 else None

    def inside(self, pod, cpu, command):
        # Each of these replaces itself by the next, so the process id is the command's own; should this script be
        # killed, the kernel ends what it started.
        return ["ip", "netns", "exec", self.names[pod], "setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(cpu), *map(str, command)]


class Process:
    def __init__(self, name, command, log):
        self.name, self.log = name, log
        with open(log, "wb") as output:
            # The mesh's registry is in here, too: this run has nothing to do with the meshes of whoever starts it.
            environment = {**os.environ, "MESH_LOCAL_DIR": str(log.parent / "registry")}
            self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        self.pid = self.child.pid

    def end(self):
        for number, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            if self.child.poll() is not None:
                return
            self.child.send_signal(number)
            try:
                self.child.wait(patience)
            except subprocess.TimeoutExpired:
                pass

    def check(self):
        if self.child.poll() is not None:
            raise Failure(f"{self.name} ended with {self.child.returncode}:\n{tail(self.log)}")

    def family(self):
        """The process and its children (nginx does its work in one)."""
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [self.pid, *map(int, children.split())]

    def cpu_seconds(self):
        """User and system time so far, of the whole family."""
        ticks = 0
        for pid in self.family():
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def rss_mib(self):
        """Resident memory, and how much of it is the process's own: the rest is its executable's file, shared by all."""
        pages = [pathlib.Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split() for pid in self.family()]
        mib = os.sysconf("SC_PAGE_SIZE") / 2**20
        return sum(int(p[1]) for p in pages) * mib, sum(int(p[1]) - int(p[2]) for p in pages) * mib


class UnixHttp(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=5)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def ask(self, method, target, body=None):
        """Status and body; (None, b"") when nobody answers."""
        try:
            self.request(method, target, body, {"mesh-admin": "1"})
            answer = self.getresponse()
            return answer.status, answer.read()
        except OSError:
            return None, b""
        finally:
            self.close()


def wait_until(what, condition, *processes):
    """Polls a condition until it holds; fails at the deadline, or at once when a process it depends on has ended."""
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        found = condition()
        if found:
            return found
        for process in processes:
            process.check()
        if time.monotonic() > deadline:
            logs = "\n".join(f"--- {p.name}\n{tail(p.log)}" for p in processes)
            raise Failure(f"{what}: not within {START_DEADLINE_S} s\n{logs}")
        time.sleep(0.02)


def busy_seconds():
    """CPU time spent on this machine by anything: to tell how much of it was not ours."""
    fields = [int(n) for n in pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def remove_leftovers():
    """Namespaces of runs that were killed: their name holds the process id of a script that is no more."""
    names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    others = {name: name.removeprefix(PREFIX).split("-")[0] for name in names if name.startswith(PREFIX)}
    for name, pid in others.items():
        if not is_run(pid):
            subprocess.run(["ip", "netns", "del", name], check=False)
    if any(is_run(pid) for pid in others.values()):
        print("warning: another run measures at the same time: both are distorted", file=sys.stderr)


def is_run(pid):
    """Whether that process is this script; a dead one that nobody has waited for has no command line."""
    try:
        return b"peers" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def ip(*arguments):
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def tail(path, lines=15):
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
