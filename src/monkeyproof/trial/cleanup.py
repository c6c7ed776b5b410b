"""What follows a trial: the target put back, what is left told; also where the trial's process has died."""

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
from monkeyproof.runtime import procfs
from monkeyproof.safety.residue import REBUILD, Audit, Residue, strays
from monkeyproof.safety.revert_one import gone_with_its_target
from monkeyproof.safety.snapshot import BEFORE_FILE, TargetSnapshot
from monkeyproof.targets.opening import open_target
from monkeyproof.targets.port import Resettable, Target
from monkeyproof.trial.plan import TrialPlan

PUT_BACK_WITHIN_S = 40.0
"""Three times what it takes where a replica has to be started anew. What takes longer hangs."""
ORPHANS_END_WITHIN_S = 10.0
"""The observers of a killed worker are given 5 s to end in order."""

T = TypeVar("T")


def put_back(target: Target, writer: HistoryWriter, phase: str, *, within_s: float | None = None) -> None:
    """What a healer changed, or a fault left, must not leak from one trial into another.

    Raises:
        NotReverted: it could not be put back, or not in time.
    """
    resettable = target.find(Resettable)
    if resettable is None:
        return
    writer.event(Kind.PHASE_STARTED, phase)
    changed = "could not"
    try:
        done = resettable.reset() if within_s is None else _within(resettable.reset, within_s)
        changed = "; ".join(done) or "nothing had to be put back"
    except Exception as error:  # Adapters fail in many ways; each one means that the target is not as it was.
        changed = f"could not: {error}"
        raise NotReverted(f"the target could not be put back: {error} ({REBUILD})") from None
    finally:
        writer.event(Kind.PHASE_ENDED, phase, why=changed)


def look_and_put_back(audit: Audit | None, target: Target, writer: HistoryWriter) -> list[Residue]:
    """The end of a trial whose faults are taken back. If the target cannot be put back, that is left as well."""
    left = audit.left(events_in(writer.folder)) if audit is not None else []
    if any(one.unknown or one.of_others for one in left):
        return left  # What does not answer would only be waited for once more; what others did is left alone.
    try:
        put_back(target, writer, "put_back", within_s=PUT_BACK_WITHIN_S)
    except NotReverted as error:
        left.append(Residue(str(error).removesuffix(f" ({REBUILD})"), REBUILD))
    return left + (audit.still_stored() if audit is not None else [])


def tell(folder: Path, anchor: Anchor, residue: Sequence[Residue]) -> None:
    """Write down what is left.

    Raises:
        NotReverted: something is.
    """
    if not residue:
        return
    with contextlib.suppress(OSError):  # Whoever reads no history reads the words.
        writer = HistoryWriter(folder, anchor, "audit", keeps_going=True)
        for one in residue:
            writer.event(Kind.RESIDUE_FOUND, one.what, what=one.what, mend=one.mend)
        writer.close()
    _fail(residue)


def left_since(utc_s: float) -> str:
    """What the last trial of this machine left behind, if that was found after an instant; else ""."""
    try:
        return str(json.loads(_left_file().read_bytes())["left"]) if _left_file().stat().st_mtime >= utc_s else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def look_after_death(plan: TrialPlan) -> None:
    """The end of a trial whose process has died, when its faults are taken back: the same looks, from outside.

    Raises:
        NotReverted: something is left.
    """
    folder = Path(plan.folder).resolve()
    residue = strays(lambda: procfs.of_trial(folder), within_s=ORPHANS_END_WITHIN_S)
    try:
        anchor = Anchor(**json.loads((folder / TRIAL_FILE).read_bytes())["anchor"])
    except (OSError, ValueError, KeyError, TypeError):
        if residue:  # It has no history yet in which to write this.
            _fail(residue)
        return
    path = Path(plan.target) if plan.target else paths.target_dir() / "target.yaml"
    # Without that file it had injected nothing yet.
    if (folder / BEFORE_FILE).exists() and not gone_with_its_target(path):
        residue += _of_target(path, folder, anchor)
    tell(folder, anchor, residue)


def note_taken_away(context: Context) -> None:
    """Before the revert: of faults without a lease, whether they are there. What a healer took away is healed."""
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
    """For 'monkeyproof stop', which waits for the end of a campaign that is not its own."""
    return paths.home() / "left.json"


def _of_target(path: Path, folder: Path, anchor: Anchor) -> list[Residue]:
    with contextlib.ExitStack() as exits:
        try:
            target = open_target(path)
        except MonkeyproofError as error:
            return [Residue(f"the target cannot be looked at: {error}", "see that it answers")]
        exits.callback(target.close)
        writer = HistoryWriter(folder, anchor, "campaign", keeps_going=True)
        exits.callback(writer.close)
        return look_and_put_back(Audit(target, folder, TargetSnapshot.read(folder)), target, writer)


def _within(work: Callable[[], T], within_s: float) -> T:
    """What ``work`` returns or raises, if that comes in time; a thread that hangs ends with this process."""
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # Raised below, in the thread that waits for it.
            failed.append(error)

    thread = threading.Thread(target=run, name="putting back", daemon=True)
    thread.start()
    thread.join(within_s)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"it did not come to an end within {within_s:g} s")
    return done[0]
