"""A target that has nothing, and faults whose doings are in the test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from monkeyproof.config.target_file import Predict, TargetFile
from monkeyproof.injection.inject import Context, Injection
from monkeyproof.record.history import Kind, parse_events
from monkeyproof.types import Evidence
from monkeyproof.undo.log import Undo


class FakeTarget:
    """A target with no capabilities: what the fault does is a list in this test."""

    def __init__(self, families: tuple[str, ...]) -> None:
        self.file = TargetFile("fake", Predict("http://127.0.0.1:1/", Path("g")), allow_faults=families)

    def find(self, capability: type[Any]) -> Any:  # noqa: ARG002
        return None

    def close(self) -> None: ...


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
