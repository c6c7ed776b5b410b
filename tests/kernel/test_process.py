"""Nothing outlives its owner: children are real processes, and owners die in every way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.guard import group_exists
from monkeyproof.process import ProcessGroup

OWNER = """
import sys, time
from pathlib import Path
from monkeyproof.process import ProcessGroup
group = ProcessGroup()
sleeper = "import time; time.sleep(60)"
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
family = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
for code in (sleeper, stubborn, family):
    print(group.start([sys.executable, "-c", code], log=Path(sys.argv[1])).pid, end=" ")
print(flush=True)
time.sleep(60)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie that nobody has reaped yet counts as ended)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_children_end_with_their_owner(tmp_path: Path, how: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert owner.stdout is not None
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 3
    os.killpg(owner.pid, how)
    owner.wait(10)
    owner.stdout.close()
    assert wait_for(lambda: all(gone(pid) for pid in pids), within_s=15)


def test_paused_child_is_ended_too(tmp_path: Path) -> None:
    with ProcessGroup() as group:
        child = group.start([sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "log")
        os.kill(child.pid, signal.SIGSTOP)
        assert group.end(child, grace_s=1.0) != 0
        assert not group_exists(child.pid)


def test_adopted_group_ends_with_the_group() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    group = ProcessGroup()
    group.adopt(stranger.pid)
    group.close()
    assert stranger.wait(10) == -signal.SIGTERM
    group.close()  # Twice is harmless.


def test_disowned_group_is_left_alone() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    group = ProcessGroup()
    group.adopt(stranger.pid)
    group.disown(stranger.pid)
    group.close()
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait(10)


def test_program_that_does_not_exist(tmp_path: Path) -> None:
    with ProcessGroup() as group, pytest.raises(OSError, match="No such file"):
        group.start([str(tmp_path / "nothing")], log=tmp_path / "log")
