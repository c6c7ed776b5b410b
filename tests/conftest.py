"""Tests have a home of their own, so that no test touches the user's target or undo logs.

A test gets a fresh one. Tests that need the embedded target (marker ``stack``) share one for the session, and the
trained models are shared with the user's own cache, for training them again proves nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from undo_world import FakeTarget

from monkeyproof import paths
from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.injection.inject import Context, set_current
from monkeyproof.record.history import HistoryWriter
from monkeyproof.undo.log import UndoLog

# These machines are shared: how long an example takes says nothing about the code.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")


# A shell that runs this in the background has it ignore Ctrl-C; processes that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# As nohup does with a hang-up. Heard and left alone, it ends nothing here, and is not ignored there.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


ALONE = ("tests/probes/", "tests/targets/test_front_door", "tests/end_to_end/test_bounds")
"""Where tests measure time, or look for other campaigns on the machine."""
LIVE = ("tests/targets/", "tests/end_to_end/", "tests/healing/test_elephant_stack")
"""Where a whole target runs, or large parts of one."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        name = item.path.relative_to(config.rootpath).as_posix()
        if name.startswith(ALONE):
            item.add_marker(pytest.mark.alone)
        elif name.startswith(LIVE):
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session", autouse=True)
def _session_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["MONKEYPROOF_CACHE"] = str(paths.cache_dir())
    os.environ["MONKEYPROOF_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("stack") is None:
        monkeypatch.setenv("MONKEYPROOF_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def open_to_others() -> Callable[[Path], list[str]]:
    """What in a folder, itself included, anybody but its owner could read, write or enter; links left out."""

    def found(folder: Path) -> list[str]:
        paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
        return [f"{path} {path.stat().st_mode & 0o777:o}" for path in paths if path.stat().st_mode & 0o077]

    return found


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A trial that is open, with a target that does nothing."""
    clock = ManualClock(50.0)
    history = HistoryWriter(tmp_path, Anchor.now(clock), "trial", clock)
    log = UndoLog(tmp_path / "undo.jsonl")
    made = Context(tmp_path, FakeTarget(("noop",)), history, log, 7, "none", clock)
    set_current(made)
    yield made
    set_current(None)
