"""The registry client, against a real MLflow server and against one that misbehaves."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from running_parts import Published, free_port

from monkeyproof.clock import SystemClock
from monkeyproof.errors import TargetError
from monkeyproof.targets import registry as registry_module
from monkeyproof.targets.port import Registry
from monkeyproof.targets.registry import RegistryClient

pytest_plugins = ("running_fixtures",)

Behaviour = Callable[[BaseHTTPRequestHandler], None]


class RecordingClock(SystemClock):
    """Real time, but sleeps are only noted."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def sleep_s(self, duration_s: float) -> None:
        self.slept_s.append(duration_s)


def answer(status: int, body: bytes, claimed: int | None = None) -> Behaviour:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body) if claimed is None else claimed))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def ok(content: object) -> Behaviour:
    return answer(200, json.dumps(content).encode())


def hang(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.0)
    handler.close_connection = True


def trickle(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(20):
        handler.wfile.write(b" ")
        time.sleep(0.05)
    handler.close_connection = True


class Misbehaving:
    """Answers each request with the next behaviour; the last one stays."""

    def __init__(self) -> None:
        self.behaviours: list[Behaviour] = []
        self.requests: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.requests.append(f"{self.command} {self.path.partition('?')[0]}")
                behave = outer.behaviours.pop(0) if len(outer.behaviours) > 1 else outer.behaviours[0]
                try:
                    behave(self)
                except OSError:
                    self.close_connection = True

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def broken() -> Iterator[Misbehaving]:
    server = Misbehaving()
    yield server
    server.close()


@pytest.fixture
def clock() -> RecordingClock:
    return RecordingClock()


@pytest.fixture
def client(broken: Misbehaving, clock: RecordingClock) -> Iterator[RegistryClient]:
    one = RegistryClient(broken.url, "shuttle", timeout_s=0.3, clock=clock)
    yield one
    one.close()


CHAMPION = {"model_version": {"version": "2", "tags": []}}


# A real server


def test_the_champion_can_be_read_and_set(registry: Published) -> None:
    client = registry.client()
    assert isinstance(client, Registry)
    assert client.champion() == registry.prepared.champion
    try:
        client.set_champion("1")
        assert client.champion() == "1"
    finally:
        client.set_champion(registry.prepared.champion)
    challenger = RegistryClient(registry.url, registry.prepared.model, "challenger")
    assert challenger.champion() == "3"


def test_versions_come_newest_first_with_their_tags(registry: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "PAGE_SIZE", 2)  # Three versions need two pages then.
    versions = registry.client().versions()
    assert [one.version for one in versions] == ["3", "2", "1"]
    assert all(len(one.sha256) == 64 and one.accuracy is not None for one in versions)


def test_missing_version_is_not_retried(registry: Published, tmp_path: Path) -> None:
    clock = RecordingClock()
    client = RegistryClient(registry.url, registry.prepared.model, clock=clock)
    for question in (lambda: client.set_champion("99"), lambda: client.download("99", tmp_path)):
        with pytest.raises(TargetError, match=rf"{registry.url}/.*version=99\) not found"):
            question()
    assert clock.slept_s == []
    assert client.champion() == registry.prepared.champion


# One that misbehaves


def test_a_dead_registry_is_named(clock: RecordingClock) -> None:
    port = free_port()
    with pytest.raises(TargetError, match=f"http://127.0.0.1:{port}/.*refused"):
        RegistryClient(f"http://127.0.0.1:{port}", "shuttle", clock=clock).champion()
    assert clock.slept_s == [0.2, 0.4]


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (answer(503, b'{"message": "database is locked"}'), "HTTP 503: database is locked"),
        (answer(500, b"<html>"), "HTTP 500$"),
        (answer(200, b"<html>"), "not a JSON object: b'<html>'"),
        (answer(200, b"[1]"), "not a JSON object"),
        (answer(200, b'{"model_ver', claimed=100), "incomplete|without sending complete"),
        (hang, "no answer within 0.3 s"),
        (trickle, "did not end within 0.3 s"),
    ],
)
def test_transient_failures_are_retried_and_lasting_ones_reported(
    broken: Misbehaving, client: RegistryClient, clock: RecordingClock, failure: Behaviour, words: str
) -> None:
    broken.behaviours = [failure, failure, ok(CHAMPION)]
    assert client.champion() == "2"
    assert clock.slept_s == [0.2, 0.4]
    broken.behaviours = [failure]
    with pytest.raises(TargetError, match=words) as raised:
        client.champion()
    assert str(raised.value).startswith(broken.url)
    assert len(broken.requests) == 6


def test_setting_the_champion_is_retried_too(broken: Misbehaving, client: RegistryClient) -> None:
    broken.behaviours = [answer(503, b""), ok({})]
    client.set_champion("1")
    assert broken.requests == ["POST /api/2.0/mlflow/registered-models/alias"] * 2


@pytest.mark.parametrize("status", [400, 403, 404])
def test_a_refusal_is_not_retried(broken: Misbehaving, client: RegistryClient, status: int) -> None:
    broken.behaviours = [answer(status, b'{"message": "no"}')]
    with pytest.raises(TargetError, match=f"HTTP {status}: no"):
        client.champion()
    assert len(broken.requests) == 1


@pytest.mark.parametrize("content", [{}, {"model_version": None}, {"model_version": {"version": "two"}}])
def test_an_answer_without_a_version_is_an_error(
    broken: Misbehaving, client: RegistryClient, content: object
) -> None:
    broken.behaviours = [ok(content)]
    with pytest.raises(TargetError, match="not a model version"):
        client.champion()


LOCATION = ok({"artifact_uri": "mlflow-artifacts:/0/models/m-1/artifacts"})


def test_a_download_is_whole_or_not_there(broken: Misbehaving, client: RegistryClient, tmp_path: Path) -> None:
    broken.behaviours = [LOCATION, answer(200, b"half", claimed=8)]
    with pytest.raises(TargetError, match=r"model\.pkl"):
        client.download("2", tmp_path)
    assert list(tmp_path.iterdir()) == []
    broken.behaviours = [LOCATION, answer(200, b"half", claimed=8), answer(200, b"complete")]
    assert client.download("2", tmp_path).read_bytes() == b"complete"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pkl"]


def test_a_download_that_is_too_large_is_given_up(
    broken: Misbehaving, client: RegistryClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry_module, "MAX_ARTIFACT_BYTES", 1000)
    broken.behaviours = [LOCATION, answer(200, b"x" * 2000)]
    with pytest.raises(TargetError, match="larger than 1000 bytes"):
        client.download("2", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_digest_is_of_the_bytes_as_they_are_served(
    broken: Misbehaving, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken.behaviours = [LOCATION, answer(200, b"model")]
    assert client.digests("2") == {"model.pkl of version 2": hashlib.sha256(b"model").hexdigest()}
    # The digest of a file elsewhere, of a missing one or of one that takes too long is unknown.
    monkeypatch.setattr(registry_module, "MAX_DIGESTED_BYTES", 1000)
    for behaviours in (
        [ok({"artifact_uri": "s3://a"})],
        [LOCATION, answer(404, b"")],
        [LOCATION, answer(200, b"x" * 2000)],
    ):
        broken.behaviours = list(behaviours)
        assert client.digests("2") == {}
    broken.behaviours = [LOCATION, answer(500, b"")]
    with pytest.raises(TargetError, match="HTTP 500"):
        client.digests("2")


def test_artifact_outside_the_server_is_refused(
    broken: Misbehaving, client: RegistryClient, tmp_path: Path
) -> None:
    broken.behaviours = [ok({"artifact_uri": "s3://bucket/models"})]
    with pytest.raises(TargetError, match="lies at s3://bucket/models; only artifacts"):
        client.download("2", tmp_path)
