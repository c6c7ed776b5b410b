"""A service with a switch, a target file and an experiment for it, and the plugin that throws the switch."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monkeyproof.clock import wait_for

PACKAGE = Path(__file__).parents[1] / "plugin_package"
SERVICE = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        x = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["x"]
        body = json.dumps({"y": x * 2}).encode()
        self.send_response(503 if Path("maintenance").exists() else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
TARGET = """
name: switched
predict: {{url: "http://127.0.0.1:{port}/score", golden: golden.jsonl, answer: $.y}}
slo: {{latency_ms: 200, objective: 0.95, stable_for_s: 0.5}}
windows: {{baseline_s: 0.5, horizon_s: {horizon_s}, after_revert_s: 3}}
load: {{rate_per_s: 0}}
allow_faults: [{family}]
{more}
"""
EXPERIMENT = """
title: The service comes back after maintenance
description: A switch makes every answer 503.
controls:
  - name: monkeyproof
    provider: {{type: python, module: monkeyproof.control}}
steady-state-hypothesis:
  title: Right answers, fast
  probes:
    - type: probe
      name: slo-holds
      tolerance: true
      provider: {{type: python, module: monkeyproof.probes.steady_state, func: slo_holds}}
method:
  - type: action
    name: maintenance
    provider: {{type: python, module: {faults}, func: maintenance, arguments: {{switch: {switch}}}}}
  - type: probe
    name: hold
    provider: {{type: python, module: monkeyproof.probes.watch, func: hold_until_recovered}}
  - type: action
    name: revert
    provider: {{type: python, module: monkeyproof.injection, func: revert}}
  - type: probe
    name: watch
    provider: {{type: python, module: monkeyproof.probes.watch, func: watch_after_revert}}
  - type: probe
    name: is-switched-back
    provider: {{type: python, module: {probes}, func: is_switched_back, arguments: {{switch: {switch}}}}}
"""


@dataclass(frozen=True, slots=True)
class SwitchedService:
    """A folder with a user's files, and the service that runs in it."""

    folder: Path
    port: int
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def switch(self) -> Path:
        return self.folder / "maintenance"

    def describe(self, *, family: str, faults: str, probes: str, more: str = "", horizon_s: float = 1.5) -> None:
        """Write ``t.yaml`` and ``e.yaml``."""
        target = TARGET.format(port=self.port, family=family, more=more, horizon_s=horizon_s)
        (self.folder / "t.yaml").write_text(target)
        experiment = EXPERIMENT.format(faults=faults, probes=probes, switch=self.switch)
        (self.folder / "e.yaml").write_text(experiment)

    def words(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "monkeyproof.cli", *arguments]

    def monkeyproof(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command line in a folder that holds none of the files."""
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir(exist_ok=True)
        return subprocess.run(
            self.words(*arguments),
            cwd=elsewhere,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@contextlib.contextmanager
def switched_service(folder: Path, environment: Mapping[str, str]) -> Iterator[SwitchedService]:
    """Start the service in a folder; it ends with the block."""
    port = free_port()
    golden = [{"body": {"x": x}, "expect": 2 * x} for x in range(100)]
    (folder / "golden.jsonl").write_text("".join(json.dumps(line) + "\n" for line in golden))
    with running_service([sys.executable, "-c", SERVICE, str(port)], folder, port):
        yield SwitchedService(folder, port, environment)


@contextlib.contextmanager
def running_service(words: Sequence[str], folder: Path, port: int) -> Iterator[None]:
    """Run a service until the block ends; it answers on a port of the loopback interface."""
    process = subprocess.Popen(words, cwd=folder)
    try:
        assert wait_for(lambda: _accepts(port), within_s=10)
        yield
    finally:
        process.kill()
        process.wait(10)


def with_packages(folder: Path) -> dict[str, str]:
    """The environment of a process that also finds the packages in a folder."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))}


def free_port() -> int:
    """A port of the loopback interface that nothing uses."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def install_package(source: Path, folder: Path) -> None:
    """Install a package as a user does, into a folder of its own and without a package registry."""
    copy = folder.with_name(f"{folder.name}-source")
    shutil.copytree(source, copy)
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run(
        [sys.executable, *words, "--disable-pip-version-check", "--target", str(folder), str(copy)],
        check=True,
        timeout=120,
        env={name: value for name, value in os.environ.items() if not name.startswith("PIP_")},
    )


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
