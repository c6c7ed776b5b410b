"""What an interrupted campaign left in its folder: finished trials, half-done ones, a worker that still runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monkeyproof.campaign.plan import TRIALS_DIR
from monkeyproof.campaign.results import is_finished
from monkeyproof.clock import wait_for
from monkeyproof.errors import Refusal
from monkeyproof.record.history import DISCARDED_DIR
from monkeyproof.runtime import procfs
from monkeyproof.trial.plan import TrialPlan

WORKER_ENDS_WITHIN_S = 30.0


def keep_finished(folder: Path, trials: Sequence[TrialPlan]) -> list[TrialPlan]:
    """The finished ones of ``trials``. Half-done ones move to another folder: not counted, and not lost.

    Raises:
        Refusal: a worker of the interrupted campaign does not end.
    """
    _await_worker(folder)
    finished: list[TrialPlan] = []
    for trial in trials:
        place = Path(trial.folder)
        done = is_finished(place)
        if done:
            finished.append(trial)
        for path in [path for path in place.parent.iterdir() if path.name.startswith(place.name)]:
            if path != place or not done:
                _discard(path, folder / DISCARDED_DIR)
    return finished


def _discard(path: Path, to: Path) -> None:
    to.mkdir(mode=0o700, exist_ok=True)
    number, free = 1, to / path.name
    while free.exists():
        number += 1
        free = to / f"{path.name}.{number}"
    path.rename(free)


def _await_worker(folder: Path) -> None:
    """Wait for the worker of a killed campaign: it reverts by itself, and writes its history meanwhile.

    Raises:
        Refusal: it does not end.
    """
    if not wait_for(lambda: not _at_work(folder), within_s=WORKER_ENDS_WITHIN_S, every_s=0.2):
        raise Refusal(
            f"process {_at_work(folder)[0]} still works on a trial of the interrupted campaign",
            "wait for it, or end it",
        )


def _at_work(folder: Path) -> list[int]:
    """Processes whose command line names something in the campaign's folder of trials."""
    named = f"{folder / TRIALS_DIR}/".encode()
    return [pid for pid in procfs.pids() if any(named in word for word in procfs.command_line(pid))]
