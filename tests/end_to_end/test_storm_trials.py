"""Storms against a user's own service, which has a bug that only some storms find."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_line import monkeyproof
from test_own_service import accepts, free_port

from monkeyproof.clock import wait_for
from monkeyproof.injection.schedule_plan import ScheduledFault, SchedulePlan, read_plan
from monkeyproof.undo import log as undo_log

SERVICE = """
import http.client, json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
own, features = int(sys.argv[1]), int(sys.argv[2])
class Service(ThreadingHTTPServer):
    request_queue_size = 128
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    features_are_down = False
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        if self.path == "/restart":
            Handler.features_are_down = False
            return self.say({})
        # The bug: it opens its circuit breaker at the first failure, and never closes it.
        if not Handler.features_are_down:
            connection = http.client.HTTPConnection("127.0.0.1", features, timeout=0.5)
            try:
                connection.request("GET", "/features")
                Handler.features_are_down = connection.getresponse().status != 200
            except OSError:
                Handler.features_are_down = True
            finally:
                connection.close()
        self.say({"y": 0 if Handler.features_are_down else 2 * asked["x"]})
    def do_GET(self):
        self.say({})
    def say(self, answer):
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
Service(("127.0.0.1", own), Handler).serve_forever()
"""
RESTART = """
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
connection.request("POST", "/restart", "{}")
connection.getresponse().read()
"""
LATENCY = {"link": "users", "low_ms": 20.0, "high_ms": 40.0}
FAILING = {"link": "features", "probability": 1.0, "status": 503}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A service that asks its features through a link, and the files of its owner."""
    service, users, features = free_port(), free_port(), free_port()
    questions = ({"body": {"x": x}, "expect": 2 * x} for x in range(1, 101))
    (tmp_path / "golden.jsonl").write_text("".join(json.dumps(one) + "\n" for one in questions))
    (tmp_path / "restart.py").write_text(RESTART)
    (tmp_path / "t.yaml").write_text(
        f"""
name: ours
predict: {{url: "http://127.0.0.1:{users}/score", golden: golden.jsonl, answer: $.y}}
slo: {{latency_ms: 250, objective: 0.9, stable_for_s: 0.5}}
windows: {{baseline_s: 0.5, horizon_s: 1.5, after_revert_s: 2}}
prober: {{rate_per_s: 20}}
load: {{rate_per_s: 0}}
links:
  users: {{listen: "127.0.0.1:{users}", forward: "127.0.0.1:{service}", protocol: http}}
  features: {{listen: "127.0.0.1:{features}", forward: "127.0.0.1:{service}", protocol: http}}
allow_faults: [network]
"""
    )
    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(service), str(features)])
    assert wait_for(lambda: accepts(service), within_s=10)
    (tmp_path / "port").write_text(str(service))
    yield tmp_path
    process.kill()
    process.wait(10)


def storm(folder: Path, *faults: ScheduledFault) -> Path:
    path = folder / "my-storm.yaml"
    path.write_text(SchedulePlan(7, 0.1, 0.5, ("network",), 2, 1.5, faults).text())
    return path


def test_a_failing_storm_shrinks_to_the_fault_that_causes_it(folder: Path) -> None:
    path = storm(
        folder,
        ScheduledFault(0.2, 1.0, "network.add_latency", LATENCY, 1),
        ScheduledFault(0.6, 1.0, "network.fail_requests", FAILING, 2),
    )
    restore = f"{sys.executable} restart.py {(folder / 'port').read_text()}"
    words = ["--target", "t.yaml", "--plan", str(path), "--out", "out", "--shrink", "--restore", restore]
    done = monkeyproof(folder, "unleash", *words)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: did not come back after the storm" in done.stdout
    assert "1 of 2 faults still fail:" in done.stdout
    least = read_plan(folder / "out" / "least.yaml")
    assert [(one.fault, one.arguments, one.start_s) for one in least.faults] == [
        ("network.fail_requests", FAILING, 0.0)
    ]
    assert "monkeyproof unleash --plan" in done.stdout
    assert (folder / "out" / "report.html").exists()
    assert undo_log.open_logs() == []


def test_a_storm_with_a_refused_fault_can_be_survived(folder: Path) -> None:
    path = storm(
        folder,
        ScheduledFault(0.1, 1.0, "network.add_latency", {**LATENCY, "low_ms": 300.0, "high_ms": 400.0}, 1),
        # More than this target allows.
        ScheduledFault(0.3, 0.5, "network.add_latency", {**LATENCY, "high_ms": 90_000.0}, 2),
    )
    done = monkeyproof(folder, "unleash", "--target", "t.yaml", "--plan", str(path), "--out", "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SURVIVED: came back after the storm: good" in done.stdout
    assert "1 fault took effect, and not all went as planned:" in done.stdout
    assert "network.add_latency (refused): not injecting" in done.stdout
    # The stored plan is an experiment, and the same bytes.
    assert (folder / "out" / "storm.yaml").read_text() == path.read_text()
    assert yaml.safe_load(path.read_text())["method"][0]["provider"]["func"] == "run_schedule"
    planned = monkeyproof(folder, "plan", "out/storm.yaml", "--target", "t.yaml")
    assert "network.add_latency on users" in planned.stdout, planned.stdout + planned.stderr
