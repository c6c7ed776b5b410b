"""Audits the embedded target from outside, without the harness's knowledge of its trials; for torture.py."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torture_processes import STRESSOR, Scoring, marked
from torture_registry import Stored

from monkeyproof.config.target_file import TargetFile
from monkeyproof.paths import home
from monkeyproof.runtime.rpc import Client
from monkeyproof.undo.log import undo_dir

QUESTIONS = 24


class Outside:
    """Looks at control sockets, the registry's HTTP API and files, /proc, the undo logs and the front door."""

    def __init__(self, target: TargetFile, rounds: Path) -> None:
        """``rounds``: the folder in which every round has its own."""
        assert target.stack is not None
        assert target.registry is not None
        self._rounds = rounds
        self._predict = target.predict.url
        self._control = target.stack.control
        with Client(self._control) as client:
            places: Mapping[str, Any] = client.call("describe")
        self._proxy = Path(places["proxy"])
        lines = target.predict.golden.read_text().splitlines()[:QUESTIONS]
        self._questions = [json.loads(line) for line in lines]
        folder = Path(places["folder"])
        self._scoring = Scoring(folder, places["replicas"], places["champion"], self._questions[0]["body"])
        self._stored = Stored(target.registry, folder / "artifacts")

    def faults(self) -> list[str]:
        """What may be there for as long as a lease. A replica that the end of one starts anew is not among it."""
        with Client(self._proxy) as client:
            left = [f"toxic {one}" for one in client.call("active")]
        with Client(self._control) as client:
            left += [
                f"the start of {name} is held: {one}" for name, one in client.call("replicas.conditions").items()
            ]
        left += [f"pid {pid}: {words!r}" for pid, words in marked(self._rounds) if STRESSOR in words]
        return left + self._scoring.faults() + self._stored.changes()

    def undo_logs(self) -> list[str]:
        """Those in which an intent is open, read without the harness's own reader."""
        left = []
        for path in undo_dir().glob("*.jsonl"):
            with contextlib.suppress(FileNotFoundError):
                steps = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
                done = {step["id"] for step in steps if step["step"] == "reverted"}
                left += [
                    f"{path.name}: {step['fault']}"
                    for step in steps
                    if step.get("undo") and step["id"] not in done
                ]
        return left

    def kept(self) -> list[str]:
        """Files that an undo would have needed, and that no process will read any more."""
        return [f"{path} is left" for pattern in ("kept/*", "displaced-*") for path in home().glob(pattern)]

    def strays(self, folder: Path) -> list[str]:
        """What the campaign started, they and theirs: known by a mark in the environment that they inherited."""
        return [f"pid {pid}: {words!r}" for pid, words in marked(folder)]

    def unserved(self) -> list[str]:
        """Replicas that do not answer as they did, each asked itself, and what the front door says wrongly."""
        # To load a model takes a replica longer than a lease, on a machine as busy as this one is.
        return self._scoring.missing() + self._wrong_answers()

    def _wrong_answers(self) -> list[str]:
        """What the front door says to golden questions."""
        wrong = 0
        for question in self._questions:
            request = urllib.request.Request(
                self._predict, json.dumps(question["body"]).encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=3.0) as answer:
                    wrong += json.load(answer)["predictions"][0] != question["expect"]
            except (OSError, ValueError, KeyError):
                wrong += 1
        return [f"{wrong} of {len(self._questions)} answers are not right"] if wrong else []
