"""Experiments that know nothing of this harness, against a service that does not either."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import monkeyproof
from test_own_service import folder as own_service  # noqa: F401
from test_own_service import free_port

from monkeyproof.clock import wait_for
from monkeyproof.probes.follower import events_of
from monkeyproof.record.history import EVENTS_FILE, TRIAL_FILE, UNDO_FILE, Kind
from monkeyproof.safety.replay import revert_all

SERVICE = '''
"""serve PORT PIDFILE | start PORT PIDFILE: a model that doubles; POST /mode makes it lie."""
import http.server, json, os, socket, subprocess, sys, time
verb, port, pid_file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if verb == "start":
    subprocess.Popen([sys.executable, __file__, "serve", *sys.argv[2:]], start_new_session=True,
                     stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while socket.socket().connect_ex(("127.0.0.1", port)):
        time.sleep(0.02)
    sys.exit()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mode = "right"
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/mode":
            Handler.mode = asked["mode"]
            return self.answer({"mode": Handler.mode})
        self.answer({"y": asked["x"] * 2 if Handler.mode == "right" else 0})
    def do_GET(self):
        self.answer({"mode": Handler.mode})
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer.request_queue_size = 128
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
with open(pid_file, "w") as file:
    file.write(str(os.getpid()))
server.serve_forever()
'''


@dataclass(frozen=True)
class World:
    """A folder with a service's files, and the service running."""

    folder: Path
    port: int

    @property
    def pid_file(self) -> Path:
        return self.folder / "pid"

    def start(self) -> None:
        subprocess.run([sys.executable, "service.py", *self.start_arguments[1:]], cwd=self.folder, check=True)
        assert wait_for(self.pid_file.exists, within_s=5)

    @property
    def start_arguments(self) -> list[str]:
        return ["service.py", "start", str(self.port), "pid"]

    def ask(self, path: str, value: Mapping[str, Any] | None = None) -> Any:
        data = None if value is None else json.dumps(value).encode()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=5) as answer:
            return json.load(answer)

    def mode_activity(self, name: str, mode: str) -> dict[str, Any]:
        return {
            "type": "action",
            "name": name,
            "provider": {
                "type": "http",
                "url": f"http://127.0.0.1:{self.port}/mode",
                "method": "POST",
                "headers": {"Content-Type": "application/json"},
                "arguments": {"mode": mode},
            },
        }

    def write(self, name: str, method: list[Any], rollbacks: list[Any], **extension: str) -> str:
        document: dict[str, Any] = {
            "title": f"A stranger's experiment, {name}",
            "description": "It knows of Chaos Toolkit only.",
            "method": method,
            "rollbacks": rollbacks,
        }
        if extension:
            document["extensions"] = [{"name": "monkeyproof", **extension}]
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        return f"{name}.yaml"

    @property
    def its_mode(self) -> dict[str, Any]:
        return {
            "type": "probe",
            "name": "its-mode",
            "tolerance": {"type": "regex", "target": "body", "pattern": "lies"},
            "provider": {"type": "http", "url": f"http://127.0.0.1:{self.port}/mode"},
        }

    def passes(self, name: str) -> str:
        """It lies in the background, as long as that takes; nothing undoes it."""
        script = (
            "import json, time, urllib.request as r\n"
            f"url = 'http://127.0.0.1:{self.port}/mode'\n"
            "say = lambda mode: r.urlopen(url, json.dumps(dict(mode=mode)).encode())\n"
            "say('lies'); time.sleep(1.2); say('right')"
        )
        lie = {"type": "action", "name": "lie", "provider": process(sys.executable, "-c", script)}
        method = [lie | {"background": True}, self.its_mode, {"ref": "its-mode"}]
        count = process("sh", "-c", "echo undone >> undone")
        return self.write(
            name,
            method,
            [{"type": "action", "name": "count", "provider": count}],
            inject="lie",
            evidence="its-mode",
        )

    def restores(self, name: str) -> str:
        """Its method tells the truth again, and its author wants nothing to be called its undo."""
        method = [self.mode_activity("lie", "lies"), self.its_mode, self.mode_activity("truth", "right")]
        return self.write(name, method, [], inject="lie", evidence="its-mode", undo="none")

    def lies(self, name: str, evidence_pattern: str = "lies", **extension: str) -> str:
        """It lies until its rollback; what proves it looks for a word in its mode."""
        look = self.its_mode | {"tolerance": {"type": "regex", "target": "body", "pattern": evidence_pattern}}
        method = [self.mode_activity("lie", "lies"), look]
        return self.write(name, method, [self.mode_activity("tell-the-truth", "right")], **extension)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    port = free_port()
    (tmp_path / "service.py").write_text(SERVICE)
    (tmp_path / "golden.jsonl").write_text(
        "".join(json.dumps({"body": {"x": x}, "expect": 2 * x}) + "\n" for x in range(1, 101))
    )
    (tmp_path / "t.yaml").write_text(
        f"""
name: ours
predict: {{url: "http://127.0.0.1:{port}/score", golden: golden.jsonl, answer: $.y}}
slo: {{latency_ms: 200, objective: 0.95, stable_for_s: 0.5}}
windows: {{baseline_s: 0.5, horizon_s: 1, after_revert_s: 2}}
load: {{rate_per_s: 0}}
"""
    )
    world = World(tmp_path, port)
    world.start()
    yield world
    with contextlib.suppress(ProcessLookupError, ValueError):
        os.kill(int(world.pid_file.read_text()), signal.SIGKILL)


def trials_of(folder: Path) -> dict[str, Any]:
    return {trial["experiment"]: trial for trial in json.loads((folder / "results.json").read_text())["trials"]}


def test_only_proven_external_faults_count(world: World) -> None:
    """A proof that never comes is waited for in test_hostile_trial."""
    named = {"inject": "lie", "undo": "tell-the-truth"}
    files = [
        world.lies("proven", **named, evidence="its-mode"),
        world.lies("nameless"),
        world.passes("passing"),
        world.restores("restoring"),
        world.lies("held-before", evidence_pattern="right|lies", **named, evidence="its-mode"),
        world.write("idle", [world.mode_activity("look", "right") | {"type": "probe"}], []),
    ]
    done = monkeyproof(world.folder, "gate", *files, "--target", "t.yaml", "--out", "out", "--no-tracking")
    # One trial each shows nothing, and half of them are no trials.
    assert done.returncode == 3, done.stdout + done.stderr
    found = trials_of(world.folder / "out")

    proven = found["proven"]["recovery"]
    assert proven["outcome"] == "fault_removed"
    assert proven["wrong_count"] > 30
    assert proven["censored_at_s"] == pytest.approx(1.0, abs=0.4)
    assert found["proven"]["faults"] == ["foreign.lie on ours"]
    (folder,) = (world.folder / "out" / "trials").glob("[0-9]*-proven-none-1/")
    (effective,) = [event for event in events_of(folder) if event.kind is Kind.FAULT_EFFECTIVE]
    assert effective.data["summary"] == 'its-mode: 200: {"mode": "lies"}'

    nameless = found["nameless"]["recovery"]
    assert nameless["outcome"] == "unproven"
    assert nameless["reason"].startswith("looks fault removed: went bad between")
    assert nameless["reason"].endswith("but nothing is named as evidence that foreign.lie took effect")
    assert nameless["wrong_count"] > 30

    # No healer acted: its activity ended.
    passing = found["passing"]["recovery"]
    assert passing["outcome"] == "fault_removed", passing
    assert passing["reverted_s"] - passing["t0_s"] == pytest.approx(1.4, abs=0.6)

    assert (world.folder / "undone").read_text() == "undone\n"

    # What comes after the injection may be what ends it: it is held before, and was never recovered under it.
    assert found["restoring"]["recovery"]["outcome"] == "fault_removed"
    assert found["restoring"]["recovery"]["censored_at_s"] == pytest.approx(1.0, abs=0.4)
    assert found["held-before"]["recovery"]["outcome"] == "invalid"
    assert "held before anything was injected" in found["held-before"]["recovery"]["reason"]

    assert "its-mode" not in found["idle"]["recovery"]["reason"]
    assert found["idle"]["recovery"]["reason"] == "no fault was injected"
    # Whatever came of them, it tells the truth again.
    assert world.ask("/score", {"x": 21}) == {"y": 42}


def test_roles_from_the_command_line(world: World) -> None:
    pid = world.pid_file.read_text()
    options = ["--target", "t.yaml", "--no-tracking"]
    killed = world.write(
        "killed",
        [
            {"type": "action", "name": "kill", "provider": process("kill", "-KILL", pid)},
            {"type": "probe", "name": "is-dead", "provider": process("sh", "-c", f"! kill -0 {pid}")},
        ],
        [{"type": "action", "name": "restart", "provider": process(sys.executable, *world.start_arguments)}],
    )
    done = monkeyproof(
        world.folder, "run", killed, *options, "--inject", "kill", "--evidence", "is-dead", "--out", "killed"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trial = trials_of(world.folder / "killed")["killed"]
    assert trial["recovery"]["outcome"] == "fault_removed", trial["recovery"]
    assert trial["recovery"]["bad_count"] > 30
    assert trial["recovery"]["recovered"] is not None
    (folder,) = (world.folder / "killed" / "trials").glob("[0-9]*-killed-none-1/")
    told = json.loads((folder / TRIAL_FILE).read_text())
    assert (told["inject"], told["evidence"], told["undo"]) == ("kill", "is-dead", "")
    assert world.ask("/score", {"x": 21}) == {"y": 42}


def process(path: str, *arguments: str) -> dict[str, Any]:
    return {"type": "process", "path": path, "arguments": list(arguments), "timeout": 10}


def test_the_undo_survives_a_kill_during_the_hold(world: World) -> None:
    text = (world.folder / "t.yaml").read_text()
    (world.folder / "t.yaml").write_text(text.replace("horizon_s: 1", "horizon_s: 60"))
    file = world.lies("lies", inject="lie", evidence="its-mode", undo="tell-the-truth")
    campaign, worker = campaign_in_its_hold(world, file, "one")
    os.kill(worker, signal.SIGKILL)
    assert campaign.wait(30) == 4
    assert world.ask("/mode") == {"mode": "right"}

    campaign, worker = campaign_in_its_hold(world, file, "two")
    campaign.send_signal(signal.SIGSTOP)
    os.killpg(worker, signal.SIGKILL)
    campaign.kill()
    campaign.wait(10)
    assert wait_for(lambda: world.ask("/mode") == {"mode": "right"}, within_s=10)

    campaign, worker = campaign_in_its_hold(world, file, "three")
    campaign.send_signal(signal.SIGSTOP)
    (watchdog,) = running(world.folder / "three", b"monkeyproof.safety.watchdog")
    for pid in (watchdog, worker):
        os.kill(pid, signal.SIGKILL)
    campaign.kill()
    campaign.wait(10)
    assert world.ask("/mode") == {"mode": "lies"}
    refused = monkeyproof(world.folder, "run", file, "--target", "t.yaml")
    assert refused.returncode == 4
    assert "foreign.lie on ours" in refused.stderr
    said: list[str] = []
    assert revert_all(said.append, dry_run=True) == 1
    assert said[1].startswith('    before: its-mode=200: {"mode": "right"}; lease: none; undone by ')
    assert 'activities=["tell-the-truth"]' in said[1]
    reverted = monkeyproof(world.folder, "revert")
    assert reverted.returncode == 0, reverted.stderr
    assert "ran tell-the-truth" in reverted.stdout
    assert world.ask("/mode") == {"mode": "right"}


def test_ctrl_c_ends_a_background_injection_before_its_undo(world: World) -> None:
    text = (world.folder / "t.yaml").read_text()
    (world.folder / "t.yaml").write_text(text.replace("horizon_s: 1", "horizon_s: 60"))
    script = (
        "import json, time, urllib.request as r\n"
        "while True:\n"
        f"    r.urlopen('http://127.0.0.1:{world.port}/mode', json.dumps(dict(mode='lies')).encode())\n"
        "    time.sleep(0.02)"
    )
    lie = {"type": "action", "name": "lie", "provider": process(sys.executable, "-c", script), "background": True}
    lie["provider"].pop("timeout")
    method, rollbacks = [lie, world.its_mode], [world.mode_activity("truth", "right")]
    file = world.write("loop", method, rollbacks, inject="lie", evidence="its-mode")
    campaign, _ = campaign_in_its_hold(world, file, "loop")
    campaign.send_signal(signal.SIGINT)
    assert campaign.wait(30) == 4
    assert world.ask("/mode") == {"mode": "right"}
    assert monkeyproof(world.folder, "revert").stdout.strip() == "Nothing is open."
    assert world.ask("/mode") == {"mode": "right"}


def campaign_in_its_hold(world: World, file: str, out: str) -> tuple[subprocess.Popen[bytes], int]:
    command = [sys.executable, "-m", "monkeyproof.cli", "run", file, "--target", "t.yaml", "--no-tracking"]
    campaign = subprocess.Popen(
        [*command, "--out", out], cwd=world.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert wait_for(lambda: in_effect(world.folder / out), within_s=30)
    (worker,) = running(world.folder / out, b"monkeyproof.trial.worker")
    return campaign, worker


def test_a_killed_workers_link_fault_ends_with_it(own_service: Path) -> None:  # noqa: F811
    world = World(own_service, 0)
    (own_service / "t.yaml").write_text(
        (own_service / "t.yaml").read_text().replace("horizon_s: 1.5", "horizon_s: 60")
    )
    campaign, worker = campaign_in_its_hold(world, "e.yaml", "out")
    os.killpg(worker, signal.SIGKILL)
    assert campaign.wait(60) == 4
    (trial,) = (path.parent for path in own_service.glob(f"out/trials/*/{EVENTS_FILE}"))
    assert [e.source for e in events_of(trial) if e.kind is Kind.FAULT_REVERTED] == ["watchdog"]
    assert [json.loads(line)["step"] for line in (trial / UNDO_FILE).open()] == ["intent", "effective", "reverted"]
    assert "Nothing is open" in monkeyproof(own_service, "revert").stdout


def running(folder: Path, module: bytes) -> list[int]:
    """Processes of a campaign that run a module."""
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"{folder}/trials/".encode() in (words := read(path)) and module in words.split(b"\0")
    ]


def in_effect(folder: Path) -> bool:
    trials = [path.parent for path in folder.glob(f"trials/*/{EVENTS_FILE}")]
    return any(event.kind is Kind.FAULT_EFFECTIVE for trial in trials for event in events_of(trial))


def read(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_an_unknown_activity_name(world: World) -> None:
    file = world.lies("lies", inject="lie", evidence="its-mod", undo="tell-the-truth")
    done = monkeyproof(world.folder, "run", file, "--target", "t.yaml")
    assert done.returncode == 2
    assert "lies.yaml:37: evidence: 'its-mod' is not a probe; did you mean 'its-mode'?" in done.stderr, done.stderr
    done = monkeyproof(world.folder, "run", file, "--target", "t.yaml", "--evidence", "lie")
    assert "lies.yaml: --evidence: 'lie' is not a probe; there are: its-mode" in done.stderr, done.stderr
    done = monkeyproof(world.folder, "run", "latency-spike", "--inject", "slow")
    assert "this experiment's faults are monkeyproof's own" in done.stderr, done.stderr
    assert not (world.folder / "runs").exists()
