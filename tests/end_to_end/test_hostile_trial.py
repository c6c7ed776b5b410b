"""Trials against a service that answers with markup and control characters: nothing of it acts on any reader."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from command_line import monkeyproof
from test_own_service import accepts, free_port

from monkeyproof.clock import wait_for

MARKUP = (
    "<script>alert(1)</script>]]>|`*_\x1b[31m\x1b]0;owned\x07\r\n## Heading\n| a | b |\u202e\u009b31m <img src=x>"
)
SERVICE = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
MARKUP = %r
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lies = False
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}")
        if self.path == "/lie":
            Handler.lies = asked["lie"]
            return self.say(200, MARKUP)
        right = json.dumps({"y": asked["x"] * 2, "version": MARKUP})
        self.say(500 if Handler.lies else 200, MARKUP if Handler.lies else right)
    def do_GET(self):
        self.say(200, "lies " + MARKUP if self.path == "/proof" and Handler.lies else MARKUP)
    def say(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Degraded", "<script>alert(1)</script>]]>|")
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def experiment(port: int, proof: str) -> dict[str, Any]:
    def lie(name: str, value: bool) -> dict[str, Any]:
        provider = {"type": "http", "url": f"http://127.0.0.1:{port}/lie", "method": "POST"}
        provider |= {"headers": {"Content-Type": "application/json"}, "arguments": {"lie": value}}
        return {"type": "action", "name": name, "provider": provider}

    look = {
        "type": "probe",
        "name": "look",
        "tolerance": {"type": "regex", "target": "body", "pattern": "^lies"},
        "provider": {"type": "http", "url": f"http://127.0.0.1:{port}/{proof}"},
    }
    return {
        "title": "It answers with markup",
        "description": "Wherever it can.",
        "method": [lie("lie", True), look],
        "rollbacks": [lie("stop", False)],
        "extensions": [{"name": "monkeyproof", "inject": "lie", "evidence": "look", "undo": "stop"}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    port = free_port()
    lines = (json.dumps({"body": {"x": x}, "expect": 2 * x}) + "\n" for x in range(1, 101))
    (tmp_path / "golden.jsonl").write_text("".join(lines))
    (tmp_path / "t.yaml").write_text(
        f"""
name: ours
predict:
  url: http://127.0.0.1:{port}/score
  golden: golden.jsonl
  answer: $.y
  degraded: X-Degraded
  model_version: $.version
slo: {{latency_ms: 200, objective: 0.95, stable_for_s: 0.5}}
windows: {{baseline_s: 0.5, horizon_s: 1, after_revert_s: 1}}
load: {{rate_per_s: 0}}
"""
    )
    for name in ("proof", "no-proof"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(experiment(port, name), sort_keys=False))
    process = subprocess.Popen([sys.executable, "-c", SERVICE % MARKUP, str(port)])
    assert wait_for(lambda: accepts(port), within_s=10)
    yield tmp_path
    process.kill()
    process.wait(10)


class Tags(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts.append(data)


def harmless(text: str) -> bool:
    """Nothing in it acts on a terminal, or turns the direction of writing."""
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


def test_reports_of_a_hostile_service(folder: Path) -> None:
    done = monkeyproof(
        folder, "run", "proof.yaml", "no-proof.yaml", "--target", "t.yaml", "--out", "out", "--no-tracking"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = folder / "out"
    trials = {one["experiment"]: one for one in json.loads((out / "results.json").read_text())["trials"]}
    # It shows the service's text, in both ways that it can come into a report.
    assert "<script>" in trials["proof"]["evidence"][0]
    assert "<script>" in trials["no-proof"]["recovery"]["reason"]
    assert trials["proof"]["recovery"]["outcome"] == "fault_removed"
    assert trials["no-proof"]["recovery"]["outcome"] == "invalid"
    assert "not within its tolerance" in trials["no-proof"]["recovery"]["reason"]
    # Proven or not, it was undone.
    port = int(re.findall(r":(\d+)/score", (folder / "t.yaml").read_text())[0])
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/proof", timeout=5) as answer:
        assert not answer.read().startswith(b"lies")

    texts = {path.name: path.read_text() for path in out.rglob("*") if path.suffix != ".arrows" and path.is_file()}
    texts |= {"stdout": done.stdout, "stderr": done.stderr}
    for name, text in texts.items():
        assert harmless(text), name

    page = Tags(texts["report.html"])
    assert "img" not in page.tags
    assert not any("alert" in script for script in page.scripts)
    assert "&lt;script&gt;alert(1)" in texts["report.html"]

    markdown = texts["report.md"]
    assert "<" not in re.sub("`[^`]*`", "", markdown)
    assert not re.search(r"^## Heading|^\| a", markdown, re.MULTILINE)
    assert "\\|\\`\\*" in markdown

    ElementTree.fromstring(texts["junit.xml"])
    assert "]]>" not in texts["junit.xml"]


def test_a_hostile_first_answer_is_shown_harmlessly(folder: Path) -> None:
    port = int(re.findall(r":(\d+)/score", (folder / "t.yaml").read_text())[0])
    urllib.request.urlopen(f"http://127.0.0.1:{port}/lie", b'{"lie": true}', timeout=5).close()
    done = monkeyproof(folder, "run", "proof.yaml", "--target", "t.yaml", "--out", "out", "--no-tracking")
    assert done.returncode == 2
    assert "answers with HTTP 500: <script>" in done.stderr
    assert harmless(done.stdout + done.stderr)
