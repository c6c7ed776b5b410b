"""Kills the harness in the middle of trials, over and over, and looks from outside at what is left.

    python tests/torture/torture.py [--kills-per-family 12] [--seed 1] [--families network,...]
        [--kinds worker,...] [--minutes M] [--target FILE]

The embedded target has to be up ('monkeyproof target up'), with nothing else breaking it. In each round a campaign
of one trial is begun, with a healer or without, and at an instant drawn from the seed something is ended:

    worker            the trial's worker, with SIGKILL, as all others but the last
    groups            the process groups of the campaign and of the worker at once
    campaign          the campaign's process alone
    watchdog          the watchdog alone; once there is another, Ctrl-C ends the campaign in order
    watchdog+worker   the watchdog, and the worker right after it
    healer            the healer; then Ctrl-C ends the campaign in order
    stop              the worker is stopped (SIGSTOP) until its leases have run out, and then goes on

Then it is audited past the harness's own eyes (see torture_audit.py) until nothing is left. Exits with 1 if
faults are left for longer than a lease, if processes or undo logs stay, if the service does not come to answer
right again, or if a trial whose lease ran out counts for anything.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torture_audit import Outside
from torture_cases import KILLS, STOP, Case, cases
from torture_faults import FAULTS_OF, Strangers, write_experiment, write_target
from torture_processes import MARK, is_gone, processes

from monkeyproof import paths
from monkeyproof.clock import wait_for
from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.errors import EXIT_REFUSED
from monkeyproof.runtime.process_group import last_log_line
from monkeyproof.targets.port import LEASE_S

LEFT_BY_S = 30.0
"""What may take longer than a fault: reports are written, stores refill, and a replica that was ended, or is
started anew by an undo, has to load a model first. That nothing holds its start has to be so within a lease."""
RENEWED_EVERY_S = 1.0
"""By the worker, its leases; the last time up to so long before it stopped."""
REPLACED_WITHIN_S = 5.0
FAULT_WITHIN_S = 40.0


@dataclass(frozen=True, slots=True)
class Round:
    """What came of it."""

    case: Case
    faulted: bool
    """Whether a fault was open in the undo log at that instant."""
    clean_s: float
    """From then until no fault was left."""
    gone_s: float
    """Until no process and no undo log was left either, and the service answered right."""
    left: tuple[str, ...]

    @property
    def bad(self) -> bool:
        return bool(self.left) or self.clean_s > self.case.bound_s

    def __str__(self) -> str:
        one = self.case
        return (
            f"{f'{one.family}.{one.fault}':27} {one.kind:15} {one.healer:8} after {one.after_s:4.2f} s"
            f"{' (fault open)' if self.faulted else '':13} clean {self.clean_s:5.2f} s, all {self.gone_s:5.2f} s"
            f" {'; '.join(self.left)}"
        )


def find_process(module: bytes, folder: Path, *, within_s: float, but: int = 0, of: int = 0) -> int:
    """The process of the campaign in ``folder`` that runs a module; 0 if none comes in time, or ``of`` ended."""
    ends_s = time.monotonic() + within_s
    while True:
        for pid, words in processes():
            if module in words.split(b"\0") and str(folder).encode() in words and pid != but:
                return pid
        if time.monotonic() >= ends_s or (of and is_gone(of)):
            return 0
        time.sleep(0.01)


def await_fault(folder: Path, campaign: subprocess.Popen[bytes]) -> list[str]:
    """Wait until a fault is intended. Says so if there is none: such a round shows nothing."""
    ends_s = time.monotonic() + FAULT_WITHIN_S
    while b"fault.intended" not in events(folder):
        if time.monotonic() >= ends_s or campaign.poll() is not None:
            return [f"no fault was injected: {last_log_line(folder.with_suffix('.log'))}"]
        time.sleep(0.005)
    return []


def events(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("trials/*/events.jsonl"))


def send(pid: int, number: int = signal.SIGKILL, how: Callable[[int, int], None] = os.kill) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            how(pid, number)


class Victim:
    """One campaign of one trial, in ``folder``."""

    def __init__(self, case: Case, experiment: Path, target: TargetFile, folder: Path, outside: Outside) -> None:
        self.case, self.folder, self.outside = case, folder, outside
        self.log = folder.with_suffix(".log")
        command = [
            sys.executable,
            "-m",
            "monkeyproof.cli",
            "run",
            str(experiment),
            "--trials",
            "1",
            "--no-tracking",
        ]
        with self.log.open("wb") as log:
            self.campaign = subprocess.Popen(
                [*command, "--healer", case.healer, "--target", str(target.path), "--out", str(folder)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, MARK: str(folder)},
                start_new_session=True,
            )

    def round(self, faults: Callable[[], list[str]]) -> Round:
        """Wait for the instant, end what is to be ended, and look until nothing is left."""
        self.worker = find_process(b"monkeyproof.trial.worker", self.folder, within_s=30, of=self.campaign.pid)
        problems = await_fault(self.folder, self.campaign) if self.case.of_fault else []
        time.sleep(self.case.after_s)
        faulted = bool(self.outside.undo_logs())
        since_s, healer = time.monotonic(), 0
        match self.case.kind:
            case "worker":
                send(self.worker)
            case "groups":
                send(self.campaign.pid, how=os.killpg)
                send(self.worker, how=os.killpg)
            case "campaign":
                send(self.campaign.pid)
            case "watchdog+worker":
                send(find_process(b"monkeyproof.safety.watchdog", self.folder, within_s=0))
                send(self.worker)
            case "watchdog":
                problems += self._replaces_its_watchdog()
                since_s = time.monotonic()
                send(self.campaign.pid, signal.SIGINT)
            case "healer":
                healer = find_process(b"monkeyproof.healing.elephant", self.folder, within_s=0)
                send(healer)
                wait_for(lambda: is_gone(healer), within_s=5, every_s=0.005)
                since_s = time.monotonic()
                send(self.campaign.pid, signal.SIGINT)
            case "stop":
                send(self.worker, signal.SIGSTOP)
        open_logs = self.outside.undo_logs if self.case.kind != STOP else list
        clean_s, left = self._until(lambda: faults() + open_logs(), since_s)
        if self.case.kind == STOP:
            send(self.worker, signal.SIGCONT)
            since_s = time.monotonic()
        gone_s, more = self._until(
            lambda: (
                self.outside.strays(self.folder)
                + self.outside.undo_logs()
                + self.outside.kept()
                + self.outside.unserved()
            ),
            since_s,
        )
        # What was over sooner, a healer has ended: then no lease ran out, and its trial may well count.
        if self.case.kind == STOP and faulted and clean_s > LEASE_S - RENEWED_EVERY_S:
            problems += self._counts_for_something()
        if faulted and "worker" in self.case.kind:
            problems += self._tells_of_the_death()
        if healer and faulted and b"observer.died" not in events(self.folder):
            problems += ["the trial did not notice that the healer had died"]
        # What something that was not ended broke again would be seen now.
        problems += [f"again: {one}" for one in faults()] + self._tracebacks()
        return Round(self.case, faulted, clean_s, gone_s, (*left, *more, *problems))

    def close(self) -> None:
        if self.campaign.poll() is None:
            self.campaign.kill()
        self.campaign.wait()

    def _until(self, look: Callable[[], list[str]], since_s: float) -> tuple[float, list[str]]:
        """When, after ``since_s``, nothing was left, and what was in the end."""
        while True:
            self.campaign.poll()  # A zombie would look like a process that is left.
            left = look()
            # Read the clock after the audit: what it found first may have ended while it checked the rest.
            took_s = time.monotonic() - since_s
            if not left or took_s > LEFT_BY_S:
                return took_s, left
            time.sleep(0.05)

    def _replaces_its_watchdog(self) -> list[str]:
        watchdog = find_process(b"monkeyproof.safety.watchdog", self.folder, within_s=0)
        if not watchdog:
            return []
        send(watchdog)
        second = find_process(
            b"monkeyproof.safety.watchdog", self.folder, within_s=REPLACED_WITHIN_S, but=watchdog, of=self.worker
        )
        return [] if second or is_gone(self.worker) else ["the watchdog was not replaced"]

    def _tells_of_the_death(self) -> list[str]:
        code, said = self.campaign.wait(LEFT_BY_S), b"worker died" in self.log.read_bytes()
        left = [] if code == EXIT_REFUSED else [f"its campaign exits with {code}"]
        return left if said else [*left, "its campaign does not say that the worker died"]

    def _counts_for_something(self) -> list[str]:
        try:
            (trial,) = json.loads((self.folder / "results.json").read_bytes())["trials"]
            outcome, why = trial["recovery"]["outcome"], trial["recovery"]["reason"]
        except (OSError, ValueError, KeyError) as error:
            return [f"no result: {error!r}"]
        # Where it stood still before the fault was proven, it may be that proof that is missed. What ends a fault
        # that is a process of its own is that process, and all that the trial can see is that it was not there.
        words = ("was not there all the while", "evidence", "not proven to have taken effect")
        told = outcome == "invalid" and any(one in why for one in words)
        return [] if told else [f"its lease ran out, and it is {outcome}: {why}"]

    def _tracebacks(self) -> list[str]:
        return ["a traceback in its output"] if b"Traceback" in self.log.read_bytes() else []


def report(rounds: Sequence[Round]) -> bool:
    """Print counts and worst times; returns whether nothing was ever left."""
    kinds = [kind for kind in (*KILLS, STOP) if any(one.case.kind == kind for one in rounds)]
    names = [
        name
        for family, faults in FAULTS_OF.items()
        for name in (family, *(f"{family}.{fault}" for fault in faults if len(faults) > 1))
    ]
    print("\nrounds / with a fault open / worst time to clean in seconds")
    print(f"{'':27}" + "".join(f"{kind:>17}" for kind in (*kinds, "all kinds")))
    for name in (*names, "all"):
        row = []
        for kind in (*kinds, ""):
            found = [
                one
                for one in rounds
                if kind in ("", one.case.kind)
                and name in ("all", one.case.family, f"{one.case.family}.{one.case.fault}")
            ]
            worst_s = max((one.clean_s for one in found), default=0.0)
            faulted = sum(one.faulted for one in found)
            row.append(f"{len(found)} / {faulted} / {worst_s:.2f}" if found else "-")
        if row[-1] != "-":
            print(f"{name:27}" + "".join(f"{cell:>17}" for cell in row))
    kills = sum(one.case.kind != STOP for one in rounds)
    if rounds:
        worst = max(rounds, key=lambda one: one.clean_s - one.case.bound_s)
        gone = max(rounds, key=lambda one: one.gone_s)
        print(f"\n{kills} kills and {len(rounds) - kills} stops; nearest to its bound: {worst}")
        print(f"longest until nothing at all was left: {gone}")
    bad = [one for one in rounds if one.bad]
    for one in bad:
        print(f"RESIDUE: {one}", file=sys.stderr)
    return not bad


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill the harness in the middle of trials; see what is left.")
    parser.add_argument("--kills-per-family", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--families", default=",".join(FAULTS_OF))
    parser.add_argument("--kinds", default=",".join((*KILLS, STOP)))
    parser.add_argument("--minutes", type=float, default=np.inf, help="begin no round later")
    parser.add_argument("--target", type=Path, default=paths.target_dir() / "target.yaml")
    arguments = parser.parse_args()
    begun_s, rng, rounds = time.monotonic(), np.random.default_rng(arguments.seed), list[Round]()
    drawn = list(cases(rng, arguments.families.split(","), arguments.kinds.split(","), arguments.kills_per_family))
    path = arguments.target.with_name("torture.yaml")
    paths.keep_private()
    write_target(path, arguments.target)
    target = read_target_file(path)
    with tempfile.TemporaryDirectory(prefix="torture-") as name, contextlib.ExitStack() as exits:
        outside = Outside(target, Path(name))
        strangers = Strangers(Path(name))
        exits.callback(strangers.close)

        def faults() -> list[str]:
            return outside.faults() + strangers.faults()

        if left := faults() + outside.undo_logs():
            print(f"not begun: {'; '.join(left)}", file=sys.stderr)
            return 4
        print(f"{len(drawn)} rounds, each of about 6 s", flush=True)
        for number, case in enumerate(drawn, start=1):
            if time.monotonic() - begun_s > 60 * arguments.minutes:
                break
            experiment = write_experiment(Path(name), case.family, case.fault, strangers)
            victim = Victim(case, experiment, target, Path(name) / f"round-{number:04}", outside)
            try:
                rounds.append(victim.round(faults))
            except KeyboardInterrupt:
                break  # The rounds so far count.
            finally:
                victim.close()
            print(f"{number:4} {rounds[-1]}", flush=True)
    took_s = time.monotonic() - begun_s
    print(f"\n{took_s / 60:.1f} minutes, {took_s / max(1, len(rounds)):.1f} s a round, seed {arguments.seed}")
    return 0 if report(rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
