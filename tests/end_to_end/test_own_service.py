"""A user's own HTTP service, described by a target file: no embedded parts, no healer, one link."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_line import monkeyproof

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.record.history import parse_events

SERVICE = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        x = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["x"]
        body = json.dumps({"y": {"value": x * 2}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
ThreadingHTTPServer.request_queue_size = 128  # Of five, the first burst of the prober and the load loses some.
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
EXPERIMENT = """
title: Our service answers in time although its network is slow
description: Every request is delayed beyond the SLO.
controls:
  - name: monkeyproof
    provider: {type: python, module: monkeyproof.control}
steady-state-hypothesis:
  title: Right answers, fast
  probes:
    - type: probe
      name: slo-holds
      tolerance: true
      provider: {type: python, module: monkeyproof.probes.steady_state, func: slo_holds}
method:
  - type: action
    name: delay
    provider:
      type: python
      module: monkeyproof.faults.network
      func: add_latency
      arguments: {link: users, low_ms: 150.0, high_ms: 200.0}
  - type: probe
    name: hold
    provider: {type: python, module: monkeyproof.probes.watch, func: hold_until_recovered}
  - type: action
    name: revert
    provider: {type: python, module: monkeyproof.injection, func: revert}
  - type: probe
    name: watch
    provider: {type: python, module: monkeyproof.probes.watch, func: watch_after_revert}
"""

SHORT = """
title: Our service answers in time although its network is slow
description: Every request is delayed beyond the SLO.
controls: [{name: monkeyproof, provider: {type: python, module: monkeyproof.control}}]
method:
  - type: action
    name: delay
    provider:
      type: python
      module: monkeyproof.faults.network
      func: add_latency
      arguments: {link: users, low_ms: 150.0, high_ms: 200.0}
extensions:
  - name: monkeyproof
    trial: {watch: {at_most_s: 2.5}}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the files that a user writes, and their service running."""
    service, link = free_port(), free_port()
    (tmp_path / "golden.jsonl").write_text(
        "".join(json.dumps({"body": {"x": x}, "expect": 2 * x}) + "\n" for x in range(100))
    )
    (tmp_path / "t.yaml").write_text(
        f"""
name: ours
predict: {{url: "http://127.0.0.1:{link}/score", golden: golden.jsonl, answer: $.y.value}}
slo: {{latency_ms: 100, objective: 0.95, stable_for_s: 0.5}}
windows: {{baseline_s: 0.5, horizon_s: 1.5, after_revert_s: 3}}
links: {{users: {{listen: "127.0.0.1:{link}", forward: "127.0.0.1:{service}", protocol: http}}}}
allow_faults: [network]
"""
    )
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(service)])
    assert wait_for(lambda: accepts(service), within_s=10)
    yield tmp_path
    process.kill()
    process.wait(10)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_run_against_ones_own_service(folder: Path, open_to_others: Callable[[Path], list[str]]) -> None:
    done = monkeyproof(
        folder, "run", "e.yaml", "--target", "t.yaml", "--healer", "none", "--out", "out", "--no-tracking"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = json.loads((folder / "out" / "results.json").read_text())["trials"]
    assert trial["recovery"]["outcome"] == "fault_removed", done.stdout
    assert trial["recovery"]["censored_at_s"] == pytest.approx(1.5, abs=0.5)
    assert trial["load"]["requests"] > 0
    assert open_to_others(folder / "out") == []
    assert open_to_others(paths.home()) == []


def test_the_short_form_under_run_and_chaos_run(folder: Path) -> None:
    (folder / "s.yaml").write_text(SHORT)
    done = monkeyproof(folder, "run", "s.yaml", "--target", "t.yaml", "--out", "out", "--no-tracking")
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = json.loads((folder / "out" / "results.json").read_text())["trials"]
    assert trial["recovery"]["outcome"] == "fault_removed", done.stdout

    chaos = Path(sys.executable).with_name("chaos")
    checked = subprocess.run(
        [chaos, "validate", "s.yaml"], cwd=folder, capture_output=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked.stdout
    done = subprocess.run(
        [chaos, "--no-version-check", "run", "s.yaml"],
        cwd=folder,
        env=os.environ | {"MONKEYPROOF_TARGET": "t.yaml"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Outcome: fault_removed" in done.stdout + done.stderr

    (run,) = (folder / "runs").iterdir()
    for journal in (folder / "journal.json", folder / "out" / trial["folder"] / "journal.json"):
        written = json.loads(journal.read_text())
        ran = [one["activity"]["name"] for one in written["run"]]
        assert ran == ["delay", "hold", "revert", "watch-after-revert"]
        assert [one["name"] for one in written["experiment"]["method"]] == ran
        assert written["experiment"]["method"][3]["provider"]["arguments"] == {"at_most_s": 2.5}
        assert [one["activity"]["name"] for one in written["rollbacks"]] == ["revert-whatever-is-left"]
        assert written["steady_states"]["before"]["steady_state_met"] is True
    phases = [
        [
            event.subject
            for event in parse_events((of / "events.jsonl").read_bytes())
            if "phase" in event.kind.value
        ]
        for of in (run, folder / "out" / trial["folder"])
    ]
    assert phases[0] == phases[1]


def test_a_family_that_is_not_allowed_is_refused(folder: Path) -> None:
    text = (folder / "t.yaml").read_text()
    (folder / "t.yaml").write_text(text.replace("[network]", "[data]"))
    done = monkeyproof(
        folder, "run", "e.yaml", "--target", "t.yaml", "--healer", "none", "--out", "out", "--no-tracking"
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert "not injecting: target 'ours' does not allow faults of the family 'network'" in done.stderr
    (trial,) = json.loads((folder / "out" / "results.json").read_text())["trials"]
    assert trial["recovery"]["outcome"] == "invalid"
    assert trial["recovery"]["bad_count"] == 0


def test_the_elephant_heals_the_embedded_target_alone(folder: Path) -> None:
    done = monkeyproof(folder, "run", "e.yaml", "--target", "t.yaml", "--healer", "elephant", "--out", "out")
    assert done.returncode == 2
    assert "the Elephant heals the embedded target only" in done.stderr


def test_the_proxy_stays_up_between_trials(folder: Path) -> None:
    proxy = subprocess.Popen(
        [sys.executable, "-m", "monkeyproof.cli", "proxy", "t.yaml"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert proxy.stdout is not None
    line = proxy.stdout.readline()
    assert line.startswith("users: 127.0.0.1:")
    port = int(line.split()[1].rsplit(":", 1)[1])
    assert accepts(port)
    proxy.send_signal(signal.SIGTERM)
    assert proxy.wait(15) == 0
    proxy.stdout.close()
    assert wait_for(lambda: not accepts(port), within_s=5)
