"""An open trial of a target that has nothing. A test module gets it with ``pytest_plugins = ("undo_world",)``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monkeyproof.clock import Anchor, ManualClock
from monkeyproof.config import Predict, TargetFile
from monkeyproof.history import HistoryWriter, Kind, parse_events
from monkeyproof.injection import Context, Injection, set_current
from monkeyproof.types import Evidence
from monkeyproof.undo import Undo, UndoLog


class FakeTarget:
    """A target with no capabilities: what the fault does is a list in this test."""

    def __init__(self, families: tuple[str, ...]) -> None:
        self.file = TargetFile("fake", Predict("http://127.0.0.1:1/", Path("g")), allow_faults=families)

    def find(self, capability: type[Any]) -> Any:  # noqa: ARG002
        return None

    def close(self) -> None: ...


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    clock = ManualClock(50.0)
    history = HistoryWriter(tmp_path, Anchor.now(clock), "trial", clock)
    log = UndoLog(tmp_path / "undo.jsonl")
    made = Context(tmp_path, FakeTarget(("noop",)), history, log, 7, "none", clock)
    set_current(made)
    yield made
    set_current(None)


def kinds(context: Context) -> list[Kind]:
    return [event.kind for event in parse_events((context.folder / "events.jsonl").read_bytes())]


def fault(**changes: Any) -> Injection:
    settings: dict[str, Any] = {
        "fault": "noop.thing",
        "subject": "s",
        "parameters": {"share": 0.1},
        "apply": lambda: None,
        "evidence": lambda _: Evidence("seen"),
        "undo": Undo("monkeyproof.faults.noop:undo_nothing", {}),
    }
    return Injection(**settings | changes)


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


OLD_INTENT = (
    b'{"step":"intent","id":"t-1","fault":"noop.nothing","subject":"s","undo":{"function":'
    b'"monkeyproof.faults.noop:undo_nothing","arguments":{}},"target_file":"x.yaml","utc":"2026"}\n'
)
