"""A control that takes requests and never answers, and a target that has ended: distinguished, and bounded."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import Predict, StackAddress, TargetFile
from monkeyproof.errors import TargetError
from monkeyproof.runtime.process_ref import identity
from monkeyproof.runtime.rpc import TOKEN_SUFFIX
from monkeyproof.safety import replay
from monkeyproof.targets import links
from monkeyproof.targets.links import ProxyLinks
from monkeyproof.targets.local.adapter import reconnecting_client
from monkeyproof.targets.local.adapter.reconnecting_client import ReconnectingClient
from monkeyproof.targets.opening import is_down
from monkeyproof.undo import log as undo_log
from monkeyproof.undo.log import OpenFault, Undo, UndoLog


@pytest.fixture
def hanging() -> Iterator[Path]:
    """A socket whose listener never answers."""
    control = paths.socket_dir() / "c"
    control.with_name("c" + TOKEN_SUFFIX).write_text("token")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(control))
        server.listen(16)
        yield control
    for path in control.parent.iterdir():
        path.unlink()
    control.parent.rmdir()


def stack(control: Path) -> TargetFile:
    return TargetFile("fake", Predict("http://127.0.0.1:1/", Path("g")), stack=StackAddress(control))


def test_second_call_to_a_hung_server_has_a_shorter_limit(hanging: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "ANSWERS_WITHIN_S", 1.0)
    monkeypatch.setattr(links, "HUNG_S", 0.1)
    monkeypatch.setattr(reconnecting_client, "HUNG_S", 0.1)
    held, asked = ProxyLinks(hanging), ReconnectingClient(hanging)
    for call, first_s in ((held.active, 1.0), (lambda: asked.call("status", timeout_s=1.0), 1.0)):
        begun_s = time.monotonic()
        with pytest.raises(TargetError, match="no answer from"):
            call()
        assert time.monotonic() - begun_s >= first_s
        begun_s = time.monotonic()
        for _ in range(3):
            with pytest.raises(TargetError, match="no answer from"):
                call()
        assert time.monotonic() - begun_s < 0.9
    held.close()
    asked.close()


def test_stopped_target_has_not_ended(hanging: Path) -> None:
    assert not is_down(stack(hanging))
    assert is_down(stack(hanging.with_name("nobody")))
    assert not is_down(TargetFile("other", Predict("http://127.0.0.1:1/", Path("g"))))


def test_fault_of_a_stopped_target_stays_open() -> None:
    """Only one whose supervisor is dead takes its faults with it: the one that comes up is another."""
    supervisor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        folder = paths.target_dir()
        folder.mkdir()
        state = {**identity(supervisor.pid), "control": str(folder / "nobody"), "sockets": "", "groups": []}
        (folder / "stack.json").write_text(json.dumps(state))
        log = UndoLog(undo_log.undo_dir() / "c-001.jsonl")
        made = Undo("monkeyproof.faults.noop:undo_nothing", {})
        log.intend(OpenFault("1", "noop.nothing", "s", made, str(folder / "target.yaml"), "now"))
        log.close()
        os.kill(supervisor.pid, signal.SIGSTOP)
        replay._close_ended_logs()
        assert len(undo_log.open_logs()) == 1
    finally:
        supervisor.kill()
        supervisor.wait()
    assert wait_for(lambda: (replay._close_ended_logs(), not undo_log.open_logs())[1], within_s=5)
