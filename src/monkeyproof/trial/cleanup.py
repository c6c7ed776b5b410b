"""The end of a trial: audit the target, reset it and report residue; also if the trial's process has died."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from monkeyproof import paths
from monkeyproof.clock import Anchor
from monkeyproof.errors import MonkeyproofError, NotReverted
from monkeyproof.injection.inject import Context, record_if_gone
from monkeyproof.record.history import TRIAL_FILE, HistoryWriter, Kind, events_in, write_json
from monkeyproof.runtime import trial_mark
from monkeyproof.safety.residue import REBUILD, Audit, Residue, strays
from monkeyproof.safety.revert_one import ended_with_target
from monkeyproof.safety.snapshot import BEFORE_FILE, TargetSnapshot
from monkeyproof.targets.opening import open_target
from monkeyproof.targets.port import Resettable, Target
from monkeyproof.trial.plan import TrialPlan

RESET_WITHIN_S = 40.0
"""Three times the duration of a reset that restarts a replica. A reset that takes longer hangs."""
ORPHANS_END_WITHIN_S = 10.0
"""The sidecars of a killed worker have 5 s to end in order."""

T = TypeVar("T")


def reset_target(target: Target, writer: HistoryWriter, phase: str, *, within_s: float | None = None) -> None:
    """Reset the target, so that no change of a healer and no residue of a fault leaks into the next trial.

    Args:
        phase: the name of the phase in the history.
        within_s: the limit for the reset; None for no limit.

    Raises:
        NotReverted: the reset failed, or did not end in time.
    """
    resettable = target.find(Resettable)
    if resettable is None:
        return
    writer.event(Kind.PHASE_STARTED, phase)
    changed = "could not"
    try:
        done = resettable.reset() if within_s is None else _within(resettable.reset, within_s)
        changed = "; ".join(done) or "nothing had to be reset"
    except Exception as error:  # Adapters fail in many ways; each failure means that the target is not as it was.
        changed = f"could not: {error}"
        raise NotReverted(f"the target could not be reset: {error} ({REBUILD})") from None
    finally:
        writer.event(Kind.PHASE_ENDED, phase, why=changed)


def audit_and_reset(audit: Audit | None, target: Target, writer: HistoryWriter) -> list[Residue]:
    """Audit the target after the revert, and reset it. A reset that fails is residue as well."""
    left = audit.left(events_in(writer.folder)) if audit is not None else []
    if any(one.unknown or one.of_others for one in left):
        return left  # A part that does not answer would only time out again; changes by others stay as they are.
    try:
        reset_target(target, writer, "put_back", within_s=RESET_WITHIN_S)
    except NotReverted as error:
        left.append(Residue(str(error).removesuffix(f" ({REBUILD})"), REBUILD))
    return left + (audit.find_stored() if audit is not None else [])


def report_residue(folder: Path, anchor: Anchor, residue: Sequence[Residue]) -> None:
    """Record the residue of a trial, if there is any, in its history and for 'monkeyproof stop'.

    Raises:
        NotReverted: there is residue.
    """
    if not residue:
        return
    with contextlib.suppress(OSError):  # The error reports it as well.
        writer = HistoryWriter(folder, anchor, "audit", keeps_going=True)
        for one in residue:
            writer.event(Kind.RESIDUE_FOUND, one.what, what=one.what, mend=one.what_to_do)
        writer.close()
    _fail(residue)


def residue_since(utc_s: float) -> str:
    """The residue of the last trial in this home, if it was found after ``utc_s``; else ""."""
    try:
        return str(json.loads(_left_file().read_bytes())["left"]) if _left_file().stat().st_mtime >= utc_s else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def clean_up_after_death(plan: TrialPlan) -> None:
    """Audit and reset the target after a trial whose process has died, once its faults are reverted.

    Raises:
        NotReverted: there is residue.
    """
    folder = Path(plan.folder).resolve()
    residue = strays(lambda: trial_mark.marked_processes(folder), within_s=ORPHANS_END_WITHIN_S)
    try:
        anchor = Anchor(**json.loads((folder / TRIAL_FILE).read_bytes())["anchor"])
    except (OSError, ValueError, KeyError, TypeError):
        if residue:  # There is no history yet that could record it.
            _fail(residue)
        return
    path = Path(plan.target) if plan.target else paths.target_dir() / "target.yaml"
    # Without that file the trial has injected nothing.
    if (folder / BEFORE_FILE).exists() and not ended_with_target(path):
        residue += _residue_of_target(path, folder, anchor)
    report_residue(folder, anchor, residue)


def record_missing_faults(context: Context) -> None:
    """Before the revert, record which faults without a lease are missing, unless a healer removed them."""
    with contextlib.suppress(OSError):
        if any(event.kind in (Kind.HEALER_ACTING, Kind.HEALER_ACTED) for event in events_in(context.folder)):
            return
    for fault in context.undo.open_faults():
        record_if_gone(context, fault)


def _fail(residue: Sequence[Residue]) -> NoReturn:
    words = "left behind after the trial: " + "; ".join(str(one) for one in residue)
    with contextlib.suppress(OSError):
        write_json(_left_file(), {"left": words})
    raise NotReverted(words)


def _left_file() -> Path:
    """The file that 'monkeyproof stop' reads, which waits for the end of another process's campaign."""
    return paths.home() / "left.json"


def _residue_of_target(path: Path, folder: Path, anchor: Anchor) -> list[Residue]:
    with contextlib.ExitStack() as exits:
        try:
            target = open_target(path)
        except MonkeyproofError as error:
            return [Residue(f"the target cannot be audited: {error}", "make sure that it answers")]
        exits.callback(target.close)
        writer = HistoryWriter(folder, anchor, "campaign", keeps_going=True)
        exits.callback(writer.close)
        return audit_and_reset(Audit(target, folder, TargetSnapshot.read(folder)), target, writer)


def _within(work: Callable[[], T], within_s: float) -> T:
    """Run ``work`` in a thread and return its result.

    Raises:
        TimeoutError: it did not end in time; the thread ends with this process.
        Exception: whatever ``work`` raises.
    """
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # The waiting thread raises it below.
            failed.append(error)

    thread = threading.Thread(target=run, name="reset", daemon=True)
    thread.start()
    thread.join(within_s)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"it did not end within {within_s:g} s")
    return done[0]
