"""A trial that is open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from undo_world import FakeTarget

from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.injection.inject import Context, set_current
from monkeyproof.record.history import HistoryWriter
from monkeyproof.undo.log import UndoLog


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    clock = ManualClock(50.0)
    history = HistoryWriter(tmp_path, Anchor.now(clock), "trial", clock)
    log = UndoLog(tmp_path / "undo.jsonl")
    made = Context(tmp_path, FakeTarget(("noop",)), history, log, 7, "none", clock)
    set_current(made)
    yield made
    set_current(None)
