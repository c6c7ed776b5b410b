"""Any HTTP service as a target: asked once before anything is done, and links through a fault proxy of our own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.errors import EXIT_USAGE, Refusal, UsageError
from monkeyproof.targets.http import LINKS, SOCKET, HttpTarget, remove_left_over
from monkeyproof.targets.opening import check_answers, open_target
from monkeyproof.targets.port import Links, Registry, Replicas, Toxic, require


class Service(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = 200
        self.asked: list[tuple[str, str, str | None, object]] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Service)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(("POST", self.path, self.headers["Authorization"], body))
        self._answer()

    def do_GET(self) -> None:
        assert isinstance(self.server, Service)
        self.server.asked.append(("GET", self.path, self.headers["Authorization"], None))
        self._answer()

    def _answer(self) -> None:
        assert isinstance(self.server, Service)
        content = b'{"predictions": [1]}' if self.server.status == 200 else b"the model is on holiday"
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    one = Service()
    yield one
    one.shutdown()
    one.server_close()


def describe(folder: Path, port: int, more: str = "", predict: str = "") -> Path:
    (folder / "golden.jsonl").write_text('{"body": {"x": 1}, "expect": 1, "tolerance": 0}\n')
    path = folder / "target.yaml"
    path.write_text(
        f"name: mine\npredict:\n  url: http://127.0.0.1:{port}/score?v=2\n  golden: golden.jsonl\n{predict}{more}"
    )
    return path


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def get(address: str) -> int:
    host, _, port = address.partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=3)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status
    finally:
        connection.close()


def is_listening(address: str) -> bool:
    host, _, port = address.partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def test_a_service_that_answers_is_asked_its_first_golden_question_once(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "sesame")
    predict = '  headers: {Authorization: "Bearer ${MY_TOKEN}"}\n'
    target = open_target(describe(tmp_path, service.port, predict=predict))
    check_answers(target)
    target.close()
    assert service.asked == [("POST", "/score?v=2", "Bearer sesame", {"x": 1})]


def test_the_method_is_the_files(service: Service, tmp_path: Path) -> None:
    target = open_target(describe(tmp_path, service.port, predict="  method: GET\n"))
    check_answers(target)
    assert service.asked == [("GET", "/score?v=2", None, None)]


def test_a_service_that_refuses_is_a_usage_error(tmp_path: Path) -> None:
    port = unused_port()
    target = open_target(describe(tmp_path, port))
    with pytest.raises(UsageError, match=rf"http://127.0.0.1:{port}/score: no answer .*refused") as error:
        check_answers(target)
    assert error.value.exit_code == EXIT_USAGE


def test_a_service_that_answers_with_an_error_is_quoted(service: Service, tmp_path: Path) -> None:
    service.status = 503
    target = open_target(describe(tmp_path, service.port))
    with pytest.raises(UsageError, match="HTTP 503: the model is on holiday; start the service, or correct"):
        check_answers(target)


@pytest.mark.parametrize("answer", [None, b"SSH-2.0-OpenSSH_9.2\r\n"])
def test_service_that_hangs_or_speaks_another_protocol_is_a_usage_error(
    tmp_path: Path, answer: bytes | None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                if answer is not None:
                    connection.sendall(answer)
                connection.recv(65536)
                done.wait(10)

        done = threading.Event()
        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        target = open_target(describe(tmp_path, server.getsockname()[1]))
        with pytest.raises(UsageError, match="no answer"):
            check_answers(target)
        done.set()
        thread.join(5)


@pytest.mark.parametrize("content", ["", "not json\n", '{"expect": 1}\n', "[1]\n"])
def test_bad_golden_file_is_named_with_its_line(service: Service, tmp_path: Path, content: str) -> None:
    target = open_target(describe(tmp_path, service.port))
    (tmp_path / "golden.jsonl").write_text(content)
    with pytest.raises(UsageError, match=r"golden\.jsonl:1: not a golden question"):
        check_answers(target)


def test_a_missing_golden_file_is_named(service: Service, tmp_path: Path) -> None:
    target = open_target(describe(tmp_path, service.port))
    (tmp_path / "golden.jsonl").unlink()
    with pytest.raises(UsageError, match=r"golden\.jsonl: the golden file cannot be read: No such file"):
        check_answers(target)


def test_without_a_file_there_must_be_an_embedded_target() -> None:
    with pytest.raises(UsageError, match="monkeyproof target up"):
        open_target(None)


def test_only_described_capabilities_are_offered(service: Service, tmp_path: Path) -> None:
    target = open_target(describe(tmp_path, service.port))
    assert isinstance(target, HttpTarget)
    for capability in (Replicas, Registry, Links):
        assert target.find(capability) is None
    with pytest.raises(Refusal, match="offers no links control"):
        require(target, Links)
    registry = "registry: {uri: http://127.0.0.1:5000, model: mine}\n"
    described = open_target(describe(tmp_path, service.port, registry))
    assert isinstance(described.find(Registry), Registry)
    described.close()


def test_links_work_until_the_target_is_closed(service: Service, tmp_path: Path) -> None:
    link = f"links: {{web: {{listen: '127.0.0.1:0', forward: '127.0.0.1:{service.port}', protocol: http}}}}\n"
    target = open_target(describe(tmp_path, service.port, link))
    assert isinstance(target, HttpTarget)
    links = require(target, Links)
    assert list(links.list()) == ["web"]
    address = target.file.links["web"].listen
    assert get(address) == 200
    toxic = links.add(Toxic("web", "http_error", {"probability": 1.0, "status": 503, "seed": 1}))
    assert get(address) == 503
    assert links.remove(toxic)
    assert get(address) == 200
    target.close()
    target.close()
    assert not is_listening(address)


def test_second_process_with_the_same_file_shares_the_proxy(service: Service, tmp_path: Path) -> None:
    """A trial and its watchdog open the same target; a port can be listened on only once."""
    port = unused_port()
    link = f"links: {{web: {{listen: '127.0.0.1:{port}', forward: '127.0.0.1:{service.port}', protocol: http}}}}\n"
    path = describe(tmp_path, service.port, link)
    first, second = open_target(path), open_target(path)
    toxic = require(second, Links).add(Toxic("web", "http_error", {"probability": 1.0, "status": 503, "seed": 1}))
    assert toxic in require(first, Links).active()
    second.close()
    assert wait_for(lambda: not require(first, Links).active(), within_s=2)
    assert get(f"127.0.0.1:{port}") == 200
    first.close()
    assert not is_listening(f"127.0.0.1:{port}")
    # What it left behind does not mislead the next.
    third = open_target(path)
    assert get(f"127.0.0.1:{port}") == 200
    third.close()


def test_a_link_whose_port_is_taken_is_a_usage_error(service: Service, tmp_path: Path) -> None:
    taken = f"links: {{web: {{listen: '127.0.0.1:{service.port}', forward: '127.0.0.1:1', protocol: tcp}}}}\n"
    with pytest.raises(UsageError, match=rf"target\.yaml: links: .*{service.port}"):
        open_target(describe(tmp_path, service.port, taken))


def test_folders_of_dead_proxies_are_removed_and_no_others(tmp_path: Path) -> None:
    names = ("mp-dead", "mp-dead-too", "mp-alive", "mp-young", "mp-open", "mp-strange", "else")
    for name in names:
        folder = tmp_path / name
        folder.mkdir(mode=0o755 if name == "mp-open" else 0o700)
        if name != "mp-strange":
            (folder / LINKS).write_text("{}")
    with socket.socket(socket.AF_UNIX) as alive, socket.socket(socket.AF_UNIX) as dead:
        for one, name in ((alive, "mp-alive"), (dead, "mp-dead-too")):
            one.bind(str(tmp_path / name / SOCKET))
            one.listen(1)
        dead.close()
        for name in names:
            if name != "mp-young":
                os.utime(tmp_path / name, (0, 0))
        remove_left_over(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*names} - {"mp-dead", "mp-dead-too"})


def test_proxy_ends_with_the_process_that_started_it(service: Service, tmp_path: Path) -> None:
    port = unused_port()
    link = f"links: {{web: {{listen: '127.0.0.1:{port}', forward: '127.0.0.1:{service.port}', protocol: http}}}}\n"
    path = describe(tmp_path, service.port, link)
    code = (
        "import sys, time; from pathlib import Path; from monkeyproof.targets.opening import open_target\n"
        "target = open_target(Path(sys.argv[1])); print('open', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"open\n"
    assert is_listening(f"127.0.0.1:{port}")
    os.kill(child.pid, signal.SIGKILL)
    child.communicate(timeout=10)
    assert wait_for(lambda: not is_listening(f"127.0.0.1:{port}"), within_s=5)
