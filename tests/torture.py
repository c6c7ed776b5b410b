"""Kills the harness in the middle of trials, over and over, and looks from outside at what is left.

    python tests/torture.py [--rounds 24] [--seed 1] [--kinds worker,groups,...] [--within-s 12] [--target FILE]

The embedded target has to be up ('monkeyproof target up'), with nothing else breaking it. In each round a campaign
of one trial is begun, and at an instant drawn from the seed something is killed with SIGKILL:

    worker            the trial's worker
    groups            the process groups of the campaign and of the worker at once
    watchdog          the watchdog alone; once there is another, Ctrl-C ends the campaign in order
    watchdog+worker   the watchdog, and the worker right after it

Then it is audited past the harness's own eyes (the proxy's control socket, the registry's HTTP API, /proc, the
undo logs, the front door) until nothing is left. Exits with 1 if faults are left for longer than a lease, if
processes or undo logs stay, or if the service does not come to answer right again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from monkeyproof import paths
from monkeyproof.config import TargetFile, read_target_file
from monkeyproof.rpc import Client
from monkeyproof.targets.port import LEASE_S
from monkeyproof.undo import undo_dir

MARK = "MONKEYPROOF_TORTURE"
KINDS = ("worker", "groups", "watchdog", "watchdog+worker")
LEFT_BY_S = 30.0
"""Processes, undo logs and wrong features may take longer than a fault: reports are written, stores refill."""
PAUSE = {
    "title": "A replica that stands still",
    "description": "One of three scoring processes is stopped.",
    "controls": [{"name": "monkeyproof", "provider": {"type": "python", "module": "monkeyproof.control"}}],
    "steady-state-hypothesis": {
        "title": "Answers are there, fast and right",
        "probes": [
            {
                "type": "probe",
                "name": "slo-holds",
                "tolerance": True,
                "provider": {"type": "python", "module": "monkeyproof.probes.steady_state", "func": "slo_holds"},
            }
        ],
    },
    "method": [
        {
            "type": "action",
            "name": "pause",
            "provider": {"type": "python", "module": "monkeyproof.faults.replicas", "func": "pause"},
        },
        {
            "type": "probe",
            "name": "hold",
            "provider": {
                "type": "python",
                "module": "monkeyproof.probes.watch",
                "func": "hold_until_recovered",
                "arguments": {"at_most_s": 10.0, "at_least_s": 8.0},
            },
        },
    ],
    "rollbacks": [
        {
            "type": "action",
            "name": "revert",
            "provider": {"type": "python", "module": "monkeyproof.injection", "func": "revert"},
        }
    ],
}


@dataclass(frozen=True, slots=True)
class Round:
    """What came of one kill."""

    experiment: str
    kind: str
    after_s: float
    faulted: bool
    """Whether a fault was open in the undo log when the kill came."""
    clean_s: float
    """From the kill until no fault was left."""
    gone_s: float
    """Until no process and no undo log was left either, and the service answered right."""
    left: tuple[str, ...]


class Outside:
    """The target as somebody sees it who knows nothing of the harness's trials."""

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
        for pid, words in processes():
            if b"monkeyproof" in words and _state(pid) in ("T", "t"):
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
                    f"{path.name}: {step['fault']}" for step in steps if "fault" in step and step["id"] not in done
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
        lines = self._target.predict.golden.read_text().splitlines()[:24]
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


def _state(pid: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    return ""


def find_process(module: bytes, folder: Path, *, within_s: float, but: int = 0) -> int:
    """The process of the campaign in ``folder`` that runs a module; 0 if there is none in time."""
    ends_s = time.monotonic() + within_s
    while True:
        for pid, words in processes():
            if module in words.split(b"\0") and str(folder).encode() in words and pid != but:
                return pid
        if time.monotonic() >= ends_s:
            return 0
        time.sleep(0.01)


def await_fault(folder: Path) -> None:
    """Wait until a fault is intended; not for ever, for a trial without a baseline injects none."""
    ends_s = time.monotonic() + 20.0
    while time.monotonic() < ends_s:
        for path in folder.glob("trials/*/events.jsonl"):
            if b"fault.intended" in path.read_bytes():
                return
        time.sleep(0.005)


def kill(pid: int, send: Callable[[int, int], None] = os.kill) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            send(pid, signal.SIGKILL)


def one_round(
    outside: Outside,
    target: TargetFile,
    experiment: str,
    kind: str,
    after_s: float,
    folder: Path,
    *,
    of_fault: bool,
) -> Round:
    """One campaign, one kill ``after_s`` after its worker's start or its fault's, one audit."""
    command = [sys.executable, "-m", "monkeyproof.cli", "run", experiment, "--trials", "1", "--no-tracking"]
    with folder.with_suffix(".log").open("wb") as log:
        campaign = subprocess.Popen(
            [*command, "--healer", "none", "--target", str(target.path), "--out", str(folder)],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, MARK: str(folder)},
            start_new_session=True,
        )
    worker = find_process(b"monkeyproof.trial_worker", folder, within_s=30)
    if of_fault:
        await_fault(folder)
    time.sleep(after_s)
    faulted = bool(outside.undo_logs())
    watchdog = find_process(b"monkeyproof.watchdog", folder, within_s=0)
    killed_s = time.monotonic()
    match kind:
        case "worker":
            kill(worker)
        case "groups":
            kill(campaign.pid, os.killpg)
            kill(worker, os.killpg)
        case "watchdog":
            kill(watchdog)
            if watchdog:
                find_process(b"monkeyproof.watchdog", folder, within_s=3, but=watchdog)
            killed_s = time.monotonic()
            with contextlib.suppress(ProcessLookupError):
                os.kill(campaign.pid, signal.SIGINT)
        case "watchdog+worker":
            kill(watchdog)
            kill(worker)
    clean_s, left = _until(lambda: outside.faults() + outside.undo_logs(), killed_s, campaign)
    gone_s, more = _until(lambda: outside.strays(folder) + outside.wrong_answers(), killed_s, campaign)
    if campaign.poll() is None:
        campaign.kill()
    campaign.wait()
    return Round(Path(experiment).stem, kind, after_s, faulted, clean_s, gone_s, (*left, *more))


def _until(
    look: Callable[[], list[str]], since_s: float, campaign: subprocess.Popen[bytes]
) -> tuple[float, list[str]]:
    """When, after ``since_s``, nothing was left, and what was in the end."""
    while True:
        campaign.poll()  # A zombie would look like a process that is left.
        looked_s = time.monotonic()
        left = look()
        if not left or looked_s - since_s > LEFT_BY_S:
            return looked_s - since_s, left
        time.sleep(0.05)


def report(rounds: list[Round]) -> bool:
    """Print counts and worst times; returns whether nothing was ever left."""
    bad = [one for one in rounds if one.left or one.clean_s > LEASE_S]
    counts = Counter((one.kind, one.faulted) for one in rounds)
    for kind in KINDS:
        of_kind = [one for one in rounds if one.kind == kind]
        if of_kind:
            print(
                f"{kind:16} {len(of_kind):3} kills, {counts[kind, True]:3} with a fault open; "
                f"no fault left after at most {max(one.clean_s for one in of_kind):.2f} s, "
                f"nothing at all after {max(one.gone_s for one in of_kind):.2f} s"
            )
    if rounds:
        worst = max(rounds, key=lambda one: one.clean_s)
        which = f"({worst.experiment}, {worst.kind})"
        print(f"worst time to clean: {worst.clean_s:.2f} s {which}, of {len(rounds)} kills")
    for one in bad:
        print(f"RESIDUE: {one}", file=sys.stderr)
    return not bad


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill the harness in the middle of trials; see what is left.")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--experiments", default="", help="default: one for each family of faults")
    parser.add_argument(
        "--within-s", type=float, default=12.0, help="kill at most so long after the worker's start"
    )
    parser.add_argument("--target", type=Path, default=paths.target_dir() / "target.yaml")
    arguments = parser.parse_args()
    target = read_target_file(arguments.target)
    outside = Outside(target)
    if left := [*outside.faults(), *outside.undo_logs()]:
        print(f"not begun: {'; '.join(left)}", file=sys.stderr)
        return 4
    rng = np.random.default_rng(arguments.seed)
    kinds = arguments.kinds.split(",")
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        pause = Path(name) / "replica-pause.yaml"
        pause.write_text(yaml.safe_dump(PAUSE))
        families = ("latency-spike", "broken-rollback", str(pause), "corrupt-records", "feature-store-outage")
        experiments = arguments.experiments.split(",") if arguments.experiments else [*families, "replica-kill"]
        experiments = [str(pause) if one == "replica-pause" else one for one in experiments]
        # Each family meets each way to die, as far as the rounds reach.
        pairs = [
            (one, kind)
            for shift in range(len(kinds))
            for place, one in enumerate(experiments)
            for kind in [kinds[(place + shift) % len(kinds)]]
        ]
        for number in range(arguments.rounds):
            experiment, kind = pairs[number % len(pairs)]
            folder = Path(name) / f"round-{number + 1:03}"
            # Most kills while a fault is there or just comes; the others at any time before.
            of_fault = bool(rng.random() < 0.7)
            after_s = float(rng.uniform(0.0, arguments.within_s * (0.5 if of_fault else 1.0)))
            found = one_round(outside, target, experiment, kind, after_s, folder, of_fault=of_fault)
            rounds.append(found)
            print(
                f"{number + 1:3} {found.experiment:22} {kind:16} after {found.after_s:5.2f} s"
                f"{' (fault open)' if found.faulted else '':13} clean {found.clean_s:5.2f} s, "
                f"all {found.gone_s:5.2f} s {'; '.join(found.left)}",
                flush=True,
            )
    return 0 if report(rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
