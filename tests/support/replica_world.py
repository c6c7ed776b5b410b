"""Real processes that stand in for scoring replicas, with a supervisor that can hold a start back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from monkeyproof.targets import port

SERVER = """
import http.server, signal, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    do_POST = do_GET
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
print(server.server_port, flush=True)
server.serve_forever()
"""
SLEEPER = "import time; print(0, flush=True); time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print(0, flush=True); time.sleep(60)"


class Fleet:
    """``port.Replicas``, ``port.Starts`` and ``port.Processes`` over children of this process."""

    def __init__(self, names, code: str = SLEEPER) -> None:
        self.code = code
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self.starts = dict.fromkeys(names, 0)
        self.held: dict[str, tuple[float, port.StartCondition]] = {}
        self.kills: dict[str, float] = {}
        for name in names:
            self._start(name)

    def _start(self, name: str, environment=None) -> None:
        child = subprocess.Popen(
            [sys.executable, "-S", "-c", self.code],
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
        assert child.stdout is not None
        self.ports[name] = int(child.stdout.readline())
        child.stdout.close()
        self.processes[name], self.starts[name] = child, self.starts[name] + 1

    def _look(self, name: str) -> None:
        if (kill_s := self.kills.get(name)) is not None and time.monotonic() >= kill_s:
            self.processes[name].kill()
            del self.kills[name]
        if self.processes[name].poll() is None or name not in self.held:
            return
        starts_s, condition = self.held[name]
        if time.monotonic() >= starts_s:
            if not condition.environment:
                del self.held[name]
            self._start(name, condition.environment)

    def list(self):
        found = []
        for name in list(self.processes):
            self._look(name)
            runs = self.processes[name].poll() is None
            url = f"http://127.0.0.1:{self.ports[name]}/metrics" if self.ports[name] else ""
            pid = self.processes[name].pid if runs else None
            state = "ready" if runs else "down"
            found.append(port.Replica(name, pid, state, False, "", url, self.starts[name]))
        return found

    def pid(self, name: str) -> int:
        return self.processes[name].pid

    def end(self, name, condition, *, notice_s=0.0, lease_s=None):
        assert lease_s is not None
        before = next(one for one in self.list() if one.name == name)
        self.held[name] = (time.monotonic() + condition.delay_s, condition)
        self.processes[name].send_signal(signal.SIGTERM if notice_s else signal.SIGKILL)
        if notice_s:
            self.kills[name] = time.monotonic() + notice_s
        return before

    def conditions(self):
        now_s = time.monotonic()
        return {
            name: port.StartCondition(max(0.0, starts_s - now_s), condition.environment)
            for name, (starts_s, condition) in self.held.items()
        }

    def release(self, name):
        if name not in self.held:
            return False
        _, condition = self.held.pop(name)
        if condition.environment:
            self.processes[name].kill()
        self.processes[name].wait()
        self._start(name)
        return True

    def roots(self):
        return (os.getpid(),)

    def close(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


def join(world, fleet: Fleet) -> None:
    world.parts |= {port.Replicas: fleet, port.Starts: fleet, port.Processes: fleet}


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()
