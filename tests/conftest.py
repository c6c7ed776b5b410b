"""What every test gets: a home and an environment of its own, and the marker of the part that it belongs to.

Nothing that a test does touches the user's target, undo logs or settings, and nothing that the user runs at the
same time changes a result: a test recognises its processes by its own folder, home or mark, never by name alone. A
test gets a fresh home. Tests that need the embedded target (marker ``stack``) share one for the session, and the
trained models come from the user's own cache, because training them again proves nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from parts import mark_of
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
# nohup does the same with a hang-up. A handler that does nothing ends nothing here, and no child inherits it.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


OF_THE_USER = (
    "CHAOSTOOLKIT_",
    "COLUMNS",
    "COVERAGE_PROCESS_",
    "FORCE_COLOR",
    "KUBECONFIG",
    "LANGUAGE",
    "LC_",
    "LINES",
    "MLFLOW_",
    "MONKEYPROOF_",
    "NO_COLOR",
    "XDG_",
)
"""How the names of variables begin with which a user sets up programs that tests run.

Without those of coverage, only the processes of pytest are measured: a tracer would slow down what tests time.
"""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if mark := mark_of(item.path.relative_to(config.rootpath).as_posix()):
            item.add_marker(mark)


@pytest.fixture(scope="session", autouse=True)
def _session_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A home and an environment that hold nothing of the user's but the cache of trained models."""
    cache = paths.cache_dir()
    for name in [name for name in os.environ if name.startswith(OF_THE_USER) or name.lower().endswith("_proxy")]:
        del os.environ[name]
    os.environ |= {
        "MONKEYPROOF_CACHE": str(cache),
        "MONKEYPROOF_HOME": str(tmp_path_factory.mktemp("home")),
        "HOME": str(tmp_path_factory.mktemp("user")),
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("stack") is None:
        monkeypatch.setenv("MONKEYPROOF_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="session")
def open_to_others() -> Callable[[Path], list[str]]:
    """What in a folder, itself included, other users could read, write or enter; links left out."""

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
