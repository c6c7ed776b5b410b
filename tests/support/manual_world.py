"""A small service in this process, and a target file with one link to it: what manual injection is tested on."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

TARGET = """\
name: small
predict: {{url: "http://127.0.0.1:{port}/score", golden: golden.jsonl}}
windows: {{horizon_s: 0.3, after_revert_s: 0.2}}
links: {{users: {{listen: "127.0.0.1:0", forward: "127.0.0.1:{port}", protocol: http}}}}
allow_faults: [{families}]
limits: {{latency_ms: 500}}
"""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._say()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._say()

    def _say(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


@contextlib.contextmanager
def small_target(folder: Path, families: str = "network, noop") -> Iterator[Path]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        (folder / "golden.jsonl").write_text(json.dumps({"body": {}, "expect": 1}) + "\n")
        path = folder / "target.yaml"
        path.write_text(TARGET.format(port=server.server_port, families=families))
        yield path
        server.shutdown()


def status_of(listen: str) -> int:
    """How a link answers, as a user sees it."""
    host, _, port = listen.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=5)
    try:
        connection.request("GET", "/score")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    with small_target(tmp_path) as path:
        yield path
