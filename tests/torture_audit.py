"""The embedded target as somebody sees it who knows nothing of the harness's trials; for tests/torture.py."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from monkeyproof.config import TargetFile
from monkeyproof.rpc import Client
from monkeyproof.undo import undo_dir

MARK = "MONKEYPROOF_TORTURE"
QUESTIONS = 24


class Outside:
    """Looks at the proxy's control socket, the registry's HTTP API, /proc, the undo logs and the front door."""

    def __init__(self, target: TargetFile) -> None:
        assert target.stack is not None
        assert target.registry is not None
        self._target = target
        with Client(target.stack.control) as client:
            self._places: Mapping[str, Any] = client.call("describe")

    def faults(self) -> list[str]:
        left = []
        with Client(Path(self._places["proxy"])) as client:
            left += [f"toxic {one}" for one in client.call("active")]
        if (version := self._champion()) != self._places["champion"]:
            left.append(f"the champion is version {version}")
        folder = str(self._target.path.parent).encode()
        for pid, words in processes():
            # Its own processes name a file of its folder; a worker that stands still names it, too, among others.
            if folder in words and b"monkeyproof.targets.local.replicas" in words and state(pid) in ("T", "t"):
                left.append(f"pid {pid} is stopped")
        return left

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

    def strays(self, folder: Path) -> list[str]:
        """What the campaign started, they and theirs: known by a mark in the environment that they inherited."""
        mark, left = f"{MARK}={folder}".encode(), []
        for pid, words in processes():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    left.append(f"pid {pid}: {words!r}")
        return left

    def wrong_answers(self) -> list[str]:
        """What the front door says to golden questions."""
        wrong = 0
        lines = self._target.predict.golden.read_text().splitlines()[:QUESTIONS]
        for line in lines:
            question = json.loads(line)
            request = urllib.request.Request(
                self._target.predict.url,
                json.dumps(question["body"]).encode(),
                {"Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=3.0) as answer:
                    wrong += json.load(answer)["predictions"][0] != question["expect"]
            except (OSError, ValueError, KeyError):
                wrong += 1
        return [f"{wrong} of {len(lines)} answers are not right"] if wrong else []

    def _champion(self) -> str:
        registry = self._target.registry
        assert registry is not None
        with urllib.request.urlopen(
            f"{registry.uri}/api/2.0/mlflow/registered-models/alias?name={registry.model}&alias={registry.alias}",
            timeout=5.0,
        ) as answer:
            return str(json.load(answer)["model_version"]["version"])


def processes() -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_bytes()


def state(pid: int) -> str:
    """The kernel's letter; "" of a process that is gone."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    return ""


def is_gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    return state(pid) in ("", "Z", "X")
