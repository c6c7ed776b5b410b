"""Secrets are planted wherever people put them, a trial is run against a service that repeats whatever it is sent,
and everything that was written or printed is searched for them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from test_own_service import accepts, free_port

from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import read_target_file
from monkeyproof.control import source_of
from monkeyproof.errors import UsageError
from monkeyproof.record.history import EXPERIMENT_FILE, JOURNAL_FILE, UNDO_FILE
from monkeyproof.targets.http import HttpTarget
from monkeyproof.undo.log import Undo

SERVICE = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mode = "right"
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if self.path.startswith("/mode"):
            Handler.mode = asked["mode"]
            return self.echo()
        self.answer({"y": asked["x"] * 2 if Handler.mode == "right" else dict(self.headers)})
    def do_GET(self):
        self.echo()
    def echo(self):
        self.answer({"path": self.path, "headers": dict(self.headers), "mode": Handler.mode})
    def answer(self, value):
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        for name in ("Authorization", "X-Env"):
            self.send_header("Set-Cookie", self.headers.get(name, "none"))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
FROM_ENVIRONMENT = {
    "PLANT_TARGET": "e1b7-4c20-target",
    "PLANT_SECRET": 'e2c8/9d31 with "quotes" & more',
    "PLANT_SETTING": "e3d9-7a52-setting",
    "PLANT_HEALTH": "e4ea-6b85-health",
}
INLINE = {
    "secret": "f1a2-0d63-secret",
    "setting": "f2b3-1e74-setting",
    "password": "f3c4-2f85-password",
    "query": "f4d5-3a96-query",
    "header": "f5e6-4ba7-token",
    "other header": "f6f7-5cb8-other",
    "argument": "f7a8-6dc9-argument",
}


def experiment(port: int) -> dict[str, Any]:
    def mode(name: str, value: str) -> dict[str, Any]:
        return {
            "type": "action",
            "name": name,
            "provider": {
                "type": "http",
                "url": f"http://user:{INLINE['password']}@127.0.0.1:{port}/mode?api_key={INLINE['query']}",
                "method": "POST",
                "secrets": ["service"],
                "headers": {
                    "Content-Type": "application/json",
                    "X-Token": f"Bearer {INLINE['header']}",
                    "X-Other": INLINE["other header"],
                    "X-Env": "${from_env}",
                    "X-Inline": "${inline}",
                },
                "arguments": {"mode": value, "password": INLINE["argument"]},
            },
        }

    def process(name: str, words: str) -> dict[str, Any]:
        return {"type": "probe", "name": name, "provider": {"type": "process", "path": "echo", "arguments": words}}

    return {
        "title": "Secrets everywhere",
        "description": "In each place where people put them.",
        "configuration": {"from_env_too": {"type": "env", "key": "PLANT_SETTING"}, "plain": INLINE["setting"]},
        "secrets": {"service": {"from_env": {"type": "env", "key": "PLANT_SECRET"}, "inline": INLINE["secret"]}},
        "method": [
            mode("lie", "lies"),
            {
                "type": "probe",
                "name": "its-mode",
                "tolerance": {"type": "regex", "target": "body", "pattern": "lies"},
                "provider": {
                    "type": "http",
                    "url": f"http://127.0.0.1:{port}/mode?x=${{from_env_too}}",
                    "secrets": ["service"],
                    "headers": {"A": "${from_env}", "B": "${inline}"},
                },
            },
            process("says-it", "${from_env_too} ${plain}"),
            {
                "type": "probe",
                "name": "fails",
                "provider": {"type": "http", "url": f"http://127.0.0.1:9/?token={INLINE['query']}&b=${{plain}}"},
            },
        ],
        "rollbacks": [mode("tell-the-truth", "right")],
        "extensions": [{"name": "monkeyproof", "inject": "lie", "evidence": "its-mode", "undo": "tell-the-truth"}],
    }


@dataclass(frozen=True)
class World:
    folder: Path
    port: int


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    port = free_port()
    for name, value in FROM_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "golden.jsonl").write_text(
        "".join(json.dumps({"body": {"x": x}, "expect": 2 * x}) + "\n" for x in range(1, 101))
    )
    (folder / "t.yaml").write_text(
        f"""
name: ours
predict:
  url: http://127.0.0.1:{port}/score
  golden: golden.jsonl
  answer: $.y
  model_version: $.y.Authorization
  headers: {{Authorization: "Bearer ${{PLANT_TARGET}}"}}
slo: {{latency_ms: 200, objective: 0.95, stable_for_s: 0.5}}
windows: {{baseline_s: 0.5, horizon_s: 1, after_revert_s: 2}}
load: {{rate_per_s: 5}}
abort_if: [{{health_url: "http://127.0.0.1:{port}/health", headers: {{X-Key: "${{PLANT_HEALTH}}"}}}}]
"""
    )
    (folder / "e.yaml").write_text(yaml.safe_dump(experiment(port), sort_keys=False))
    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(port)])
    assert wait_for(lambda: accepts(port), within_s=10)
    yield World(folder, port)
    process.kill()
    process.wait(10)


def forms(value: str) -> set[bytes]:
    """As it is, as it stands in a URL and in JSON, and cut off."""
    return {
        form.encode() for form in (value[:8], quote(value), quote(value, safe="")[:10], json.dumps(value)[1:-1])
    }


def found_in(files: list[Path], values: dict[str, str]) -> list[tuple[str, str]]:
    return [
        (str(path), name)
        for path in files
        for name, value in values.items()
        if any(form in path.read_bytes() for form in forms(value))
    ]


def test_no_secret_is_written_or_printed(world: World, tmp_path: Path) -> None:
    own = {path.name for path in world.folder.iterdir()}
    done = subprocess.run(
        [*(sys.executable, "-m", "monkeyproof.cli"), "run", "e.yaml", "--target", "t.yaml", "--out", "runs/out"],
        cwd=world.folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "stdout").write_text(done.stdout)
    (tmp_path / "stderr").write_text(done.stderr)
    (trial,) = json.loads((world.folder / "runs/out/results.json").read_text())["trials"]
    assert trial["recovery"]["outcome"] == "fault_removed", trial["recovery"]
    assert "lies" in trial["evidence"][0] or "its-mode" in trial["evidence"][0]
    (folder,) = (path for path in (world.folder / "runs/out/trials").iterdir() if path.is_dir())
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in own]
    names = {path.name for path in files}
    # What is searched is really there.
    assert {
        JOURNAL_FILE,
        EXPERIMENT_FILE,
        UNDO_FILE,
        "events.jsonl",
        "report.html",
        "junit.xml",
        "mlflow.db",
    } <= names
    assert found_in(files, FROM_ENVIRONMENT) == []
    assert found_in(files, INLINE) == []
    # Hidden, not lost: where each one came from is still told.
    journal = (folder / JOURNAL_FILE).read_text()
    for name in ("[configuration.plain]", "[configuration.from_env_too]", "[secrets.service.from_env]"):
        assert name in journal, name

    # The undo can be run again nevertheless; but not by a file that has changed.
    intent = json.loads((folder / UNDO_FILE).read_text().splitlines()[0])
    undo = Undo(intent["undo"]["function"], intent["undo"]["arguments"])
    target = HttpTarget(read_target_file(world.folder / "t.yaml"))
    assert undo.run(target) == "ran tell-the-truth"
    text = (world.folder / "e.yaml").read_text()
    (world.folder / "e.yaml").write_text(text + "# changed\n")
    with pytest.raises(UsageError, match="has changed since the fault was injected"):
        undo.run(target)
    target.close()


def test_the_file_of_chaos_run_is_found_by_its_content(tmp_path: Path) -> None:
    document = experiment(1)
    text = yaml.safe_dump(document)
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(text if name == "b.yaml" else text.replace("lies", "truths"))
    document["dry"] = None
    document["method"][0]["provider"]["timeout"] = 60.0
    words = ["run", str(tmp_path / "none.yaml"), str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]
    assert source_of(document, words) == (str(tmp_path / "b.yaml"), hashlib.sha256(text.encode()).hexdigest())
    assert source_of(document, words[:-1]) == ("", "")
