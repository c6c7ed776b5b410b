"""Nothing outlives its owner: children are real processes, and owners die in every way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from monkeyproof.clock import wait_for
from monkeyproof.runtime.process_group import ProcessGroup, await_end
from monkeyproof.runtime.reaper import group_exists

OWNER = """
import sys, time
from pathlib import Path
from monkeyproof.runtime.process_group import ProcessGroup, await_end
group = ProcessGroup()
sleeper = "import time; time.sleep(60)"
stubborn = f'''import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({sys.argv[2]!r}).touch()
time.sleep(60)'''
family = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
for code in (sleeper, stubborn, family):
    print(group.start([sys.executable, "-c", code], log=Path(sys.argv[1])).pid, end=" ")
while not Path(sys.argv[2]).exists():
    time.sleep(0.01)
print(flush=True)
time.sleep(60)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie that its parent has not reaped yet counts as ended)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


HOW = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(scope="module")
def orphans(tmp_path_factory: pytest.TempPathFactory) -> Mapping[signal.Signals, list[int]]:
    """Children of owners that have just ended in each way. All at once: the guard waits long for the stubborn."""
    folder = tmp_path_factory.mktemp("owners")
    owners = {
        how: subprocess.Popen(
            [sys.executable, "-c", OWNER, str(folder / "log"), str(folder / how.name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for how in HOW
    }
    found = {}
    for how, owner in owners.items():
        assert owner.stdout is not None
        found[how] = [int(pid) for pid in owner.stdout.readline().split()]
        owner.stdout.close()
    for how, owner in owners.items():
        os.killpg(owner.pid, how)
    for owner in owners.values():
        owner.wait(10)
    return found


@pytest.mark.parametrize("how", HOW)
def test_children_end_with_their_owner(orphans: Mapping[signal.Signals, list[int]], how: signal.Signals) -> None:
    pids = orphans[how]
    assert len(pids) == 3
    assert wait_for(lambda: all(gone(pid) for pid in pids), within_s=15)


def test_paused_child_is_ended_too(tmp_path: Path) -> None:
    with ProcessGroup() as group:
        child = group.start([sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "log")
        os.kill(child.pid, signal.SIGSTOP)
        assert group.end(child, grace_s=1.0) != 0
        assert not group_exists(child.pid)


WAITS_FOR_OTHERS = """
import signal, sys, time
from pathlib import Path
own, *others = map(Path, sys.argv[1:])
def told(*_):
    own.with_suffix(".told").touch()
    while not all(other.with_suffix(".told").exists() for other in others):
        time.sleep(0.01)
    sys.exit(0)
signal.signal(signal.SIGTERM, told)
own.with_suffix(".ready").touch()
time.sleep(60)
"""


def test_children_asked_to_end_do_so_concurrently(tmp_path: Path) -> None:
    """Each one ends only when the other was told too: asked in turn, the first would have to be killed."""
    one, other = tmp_path / "one", tmp_path / "other"
    with ProcessGroup() as group:
        children = [
            group.start([sys.executable, "-c", WAITS_FOR_OTHERS, *map(str, paths)], log=tmp_path / "log")
            for paths in ((one, other), (other, one))
        ]
        ready = [path.with_suffix(".ready") for path in (one, other)]
        assert wait_for(lambda: all(path.exists() for path in ready), within_s=20)
        for child in children:
            group.ask_to_end(child)
        assert [group.end(child, grace_s=20.0) for child in children] == [0, 0]


def test_await_end_returns_at_the_end_and_not_before(tmp_path: Path) -> None:
    with ProcessGroup() as group:
        child = group.start([sys.executable, "-c", "import time; time.sleep(60)"], log=tmp_path / "log")
        assert not await_end(child, within_s=0.1)
        os.kill(child.pid, signal.SIGKILL)
        assert await_end(child, within_s=10)
        assert child.returncode == -signal.SIGKILL
        assert await_end(child, within_s=0)  # Of one that was reaped already, too.


def test_adopted_group_ends_with_the_group() -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    reaper = threading.Thread(target=stranger.wait)  # While a zombie is left of it, the guard waits for it.
    reaper.start()
    group = ProcessGroup()
    group.adopt(stranger.pid)
    group.close()
    reaper.join(10)
    assert stranger.returncode == -signal.SIGTERM
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
