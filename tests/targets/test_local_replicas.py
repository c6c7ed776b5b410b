"""The fork server: replicas never outlive it, and models may kill the process that loads them."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from running_parts import Published, answers_200, free_port, http, start_with_control

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.errors import TargetError
from monkeyproof.runtime.process_group import ProcessGroup
from monkeyproof.runtime.rpc import TOKEN_SUFFIX, WRONG_TOKEN, Client
from monkeyproof.targets.local.control_plane.layout import REPLICAS
from monkeyproof.targets.local.models.data import Entities

pytest_plugins = ("running_fixtures",)

MODULE = "monkeyproof.targets.local.control_plane.fork_server"


@dataclass(frozen=True)
class Forks:
    control: Client
    path: Path
    pid: int
    folder: Path

    def start(self, name: str, port: int) -> int:
        return int(self.control.call("start", name=name, port=port)["pid"])


def write_config(folder: Path, registry: Published) -> Path:
    config = folder / "replicas.json"
    settings = {
        "registry_urls": dict.fromkeys(REPLICAS, registry.url),
        "model": registry.prepared.model,
        "alias": "champion",
        "features_host": "127.0.0.1",
        "features_port": free_port(),
        "serving_file": str(folder / "serving.json"),
        "snapshots_dir": str(folder),
    }
    config.write_text(json.dumps(settings))
    return config


@contextmanager
def running_forks(registry: Published, folder: Path) -> Iterator[Forks]:
    sockets = paths.socket_dir()
    with ProcessGroup() as group:
        client = start_with_control(group, MODULE, write_config(folder, registry), sockets)
        yield Forks(client, sockets / "fork_server.sock", client.call("ping")["pid"], folder)
        client.close()
    shutil.rmtree(sockets, ignore_errors=True)


@pytest.fixture(scope="module")
def forks(registry: Published, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with running_forks(registry, tmp_path_factory.mktemp("forks")) as running:
        yield running


def exists(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_replica_leads_a_session_shares_no_files_and_is_reaped(forks: Forks) -> None:
    port = free_port()
    pid = forks.start("replica-1", port)
    assert os.getsid(pid) == pid
    assert wait_for(lambda: answers_200(f"http://127.0.0.1:{port}/ping"), within_s=10)
    parents = {str(entry.readlink()) for entry in Path(f"/proc/{forks.pid}/fd").iterdir() if int(entry.name) > 2}
    own = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if int(entry.name) > 2}
    assert not {one for one in parents & own if one.startswith("socket:")}

    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: not Path(f"/proc/{pid}").exists(), within_s=5)
    began_s = time.monotonic()
    again = forks.start("replica-1", port)
    assert wait_for(lambda: answers_200(f"http://127.0.0.1:{port}/ping"), within_s=10, every_s=0.01)
    assert time.monotonic() - began_s < 2.0
    assert again != pid


def test_a_replica_listens_only_when_it_can_answer(forks: Forks) -> None:
    port = free_port()
    forks.start("replica-2", port)
    answers = []

    def answered() -> bool:
        with contextlib.suppress(OSError):  # Refused: the front door would ask another one.
            answers.append(http(f"http://127.0.0.1:{port}/ping").status)
        return bool(answers)

    assert wait_for(answered, within_s=10, every_s=0.001)
    assert answers == [200]


def test_a_replica_ends_cleanly_on_sigterm(forks: Forks) -> None:
    port = free_port()
    pid = forks.start("replica-1", port)
    assert wait_for(lambda: answers_200(f"http://127.0.0.1:{port}/ping"), within_s=10)
    os.kill(pid, signal.SIGTERM)
    assert wait_for(lambda: not Path(f"/proc/{pid}").exists(), within_s=5)
    assert not (forks.folder / "replicas" / "replica-1").exists()
    assert "Traceback" not in (forks.folder / "replicas.log").read_text()


def test_nothing_outlives_a_killed_fork_server(registry: Published, tmp_path: Path) -> None:
    with running_forks(registry, tmp_path) as forks:
        pids = [forks.start(f"replica-{number}", free_port()) for number in (1, 2)]
        os.kill(forks.pid, signal.SIGKILL)
        assert wait_for(lambda: not any(exists(pid) for pid in pids), within_s=5)


def test_a_port_in_use_is_reported(forks: Forks) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(TargetError, match=r"replica-1: cannot listen on 127\.0\.0\.1:\d+ .*in use"),
    ):
        forks.start("replica-1", taken.getsockname()[1])
    assert forks.start("replica-1", free_port())


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("dance", {}, "dance: no such method"),
        ("start", {"name": "replica-1"}, "missing parameter 'port'"),
        ("start", {"name": "replica-1", "port": "many"}, "invalid literal"),
        ("start", {"name": "replica-1", "port": 99999}, "cannot listen"),
        ("trial_load", {"model": 5, "sha256": "", "rows": []}, "str"),
    ],
)
def test_wrong_requests_get_an_error_message(
    forks: Forks, method: str, params: dict[str, object], words: str
) -> None:
    with pytest.raises(TargetError, match=words):
        forks.control.call(method, **params)
    assert forks.control.call("ping") == {"pid": forks.pid}


def test_bad_settings_end_the_fork_server_at_once(tmp_path: Path) -> None:
    (tmp_path / "replicas.json").write_text('{"registry_urls": {}}')
    command = [
        sys.executable,
        "-m",
        MODULE,
        "--config",
        str(tmp_path / "replicas.json"),
        "--control",
        "never.sock",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "replicas.json: model: Field required" in done.stderr
    assert "Traceback" not in done.stderr


# Trial loads: the models


class Sleeps:
    def __reduce__(self) -> object:
        return time.sleep, (60,)


class Crashes:
    def __reduce__(self) -> object:
        return os.kill, (0, signal.SIGSEGV)  # 0: its whole group, which has to be its own.


class Exits:
    def __reduce__(self) -> object:
        return os._exit, (0,)


class Devours:
    def __reduce__(self) -> object:
        return bytearray, (8_000_000_000,)


def trial(forks: Forks, model: Path, sha256: str, rows: list[list[float]]) -> dict[str, object]:
    return dict(forks.control.call("trial_load", model=str(model), sha256=sha256, rows=rows))


def test_a_good_model_answers(forks: Forks, registry: Published, tmp_path: Path) -> None:
    client = registry.client()
    version = registry.prepared.champion
    model = client.download(version, tmp_path)
    serving = Entities.load(registry.prepared.data_dir / "features.npz")
    result = trial(forks, model, client.version(version).sha256, serving.values[:50].tolist())
    assert result["ok"] is True
    assert result["predictions"] == serving.labels[:50].tolist()
    unknown_digest = trial(forks, model, "", serving.values[:1].tolist())
    assert unknown_digest["ok"] is True


def test_one_flipped_bit_is_found_before_the_model_is_loaded(
    forks: Forks, registry: Published, tmp_path: Path
) -> None:
    client = registry.client()
    model = client.download("2", tmp_path)
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 4
    model.write_bytes(content)
    result = trial(forks, model, client.version("2").sha256, [[0.0] * 9])
    assert result["ok"] is False
    assert str(result["why"]).startswith("sha256 differs: the file has ")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Crashes(), "died by signal 11 (SIGSEGV)"),
        (Exits(), "gave no answer that can be read"),
        (Devours(), "MemoryError"),
        ("a text", "'str' object has no attribute 'predict'"),
    ],
)
def test_harmful_model_harms_only_its_trial_load(forks: Forks, tmp_path: Path, model: object, why: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(model))
    result = trial(forks, path, "", [[0.0] * 9])
    assert result["ok"] is False
    assert why in str(result["why"])
    assert forks.control.call("ping") == {"pid": forks.pid}


def test_a_missing_and_a_truncated_model_are_distinguished(forks: Forks, tmp_path: Path) -> None:
    assert "No such file" in str(trial(forks, tmp_path / "none.pkl", "", [])["why"])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps([1] * 1000)[:50])
    assert "truncated" in str(trial(forks, tmp_path / "model.pkl", "", [])["why"])


def test_hung_model_is_killed_and_others_are_served_meanwhile(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Sleeps()))
    results: list[dict[str, object]] = []
    waiting = threading.Thread(target=lambda: results.append(trial(forks, tmp_path / "model.pkl", "", [])))
    began_s = time.monotonic()
    waiting.start()
    with Client(forks.path) as other:
        port = free_port()
        other.call("start", name="replica-1", port=port)
        assert wait_for(lambda: answers_200(f"http://127.0.0.1:{port}/ping"), within_s=4)
        assert time.monotonic() - began_s < 4.5
        assert waiting.is_alive()
        waiting.join(8)
        assert results == [
            {"ok": False, "why": "loading it and asking it took longer than 5 s", "predictions": []}
        ]
        assert http(f"http://127.0.0.1:{port}/ping").status == 200


def test_result_for_a_disconnected_client_is_dropped(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Devours()))
    with socket.socket(socket.AF_UNIX) as gone:
        gone.connect(str(forks.path))
        params = {"model": str(tmp_path / "model.pkl"), "sha256": "", "rows": []}
        token = json.dumps({"token": token_of(forks.path).read_text()}).encode()
        asked = json.dumps({"id": 1, "method": "trial_load", "params": params}).encode()
        gone.sendall(token + b"\n" + asked + b"\nnot a request\n")
    assert wait_for(lambda: forks.control.call("ping") == {"pid": forks.pid}, within_s=2)
    assert trial(forks, tmp_path / "none.pkl", "", [])["ok"] is False


def token_of(control: Path) -> Path:
    return control.with_name(control.name + TOKEN_SUFFIX)


def test_fork_server_requires_its_token(forks: Forks) -> None:
    right = token_of(forks.path).read_text()
    assert token_of(forks.path).stat().st_mode & 0o777 == 0o600
    start = json.dumps({"id": 1, "method": "start", "params": {"name": "x", "port": free_port()}}).encode()
    for opening in ({"token": right[::-1]}, {"token": ""}, {"id": 1, "method": "ping"}):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(5)
            stranger.connect(str(forks.path))
            stranger.sendall(json.dumps(opening).encode() + b"\n" + start + b"\n")
            said = stranger.makefile("rb").readlines()
        assert [json.loads(line) for line in said] == [WRONG_TOKEN]
        assert right.encode() not in b"".join(said)
    assert forks.control.call("ping") == {"pid": forks.pid}
