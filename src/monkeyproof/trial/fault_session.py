"""Where faults may be injected: an open target with an undo log, a watchdog and leases, and its faults' context.

A trial stands on this, and so does a fault by hand: whatever injects is as safe as a trial.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from monkeyproof.clock import Clock
from monkeyproof.errors import NotReverted, TargetError
from monkeyproof.injection.inject import Context, revert, set_current
from monkeyproof.record import history
from monkeyproof.record.history import HistoryWriter
from monkeyproof.safety.residue import Audit
from monkeyproof.safety.safeguards import Safeguards
from monkeyproof.targets.opening import is_gone
from monkeyproof.targets.port import Target
from monkeyproof.trial.cleanup import note_taken_away
from monkeyproof.undo.log import begin, undo_dir


class FaultSession:
    """One undo log from its first line to its last, with all that keeps its faults from being left."""

    def __init__(
        self,
        exits: contextlib.ExitStack,
        target: Target,
        writer: HistoryWriter,
        *,
        seed: int,
        arm: str,
        clock: Clock,
        ends_group: bool = True,
    ) -> None:
        """
        Args:
            exits: where its end is put; to be closed when all is taken back, before target and history are.
            ends_group: whether the process group that this process leads is the harness's own, and ends with it.

        Raises:
            Refusal: the undo log cannot be written, or nobody would undo anything if this process were killed.
        """
        folder = writer.folder
        self.audit: Audit | None = None
        self.log = begin(undo_dir() / f"{run_name(folder)}.jsonl")
        # Closed after the log: a process that is killed while it closes that is still watched.
        try:
            self._safeguards = Safeguards(self.log.path, folder, target, writer, ends_group=ends_group)
        except BaseException:
            self.log.close()
            raise
        exits.callback(self._safeguards.close)
        exits.callback(self.log.close, folder / history.UNDO_FILE)
        self.context = Context(folder, target, writer, self.log, seed, arm, clock)
        self.context.before_injection = self._safeguards.check
        self.context.before_revert = self._before_revert
        set_current(self.context)
        exits.callback(set_current, None)

    def look(self) -> None:
        """What the target looks like now is what it has to look like again."""
        self.audit = Audit.begin(self.context.target, self.context.folder)

    def why_gone(self) -> str:
        """Why nothing of it can be measured or taken back any more; "" while it is there."""
        gone = is_gone(self.context.target.file)
        return "the embedded target ended in the middle of the trial" if gone else ""

    def why_too_long(self) -> str:
        """Why a fault may not stay any longer; "" if none is there for too long."""
        context = self.context
        return context.active_faults.why_too_long(context.target.file.windows, context.clock.monotonic_s())

    def take_back(self) -> NotReverted | None:
        """Take back every open fault. However that fails, what else is left has to be known as well."""
        try:
            revert()
        except NotReverted as error:
            return error
        except Exception as error:  # Also one of ours: it must not skip the looks that follow.
            words = ", ".join(f"{one.fault} on {one.subject}" for one in self.log.open_faults())
            return NotReverted(
                f"taking back what was injected failed: {error!r} ({words or 'what is open now is not known'})"
            )
        return None

    def _before_revert(self) -> None:
        self._safeguards.settle()
        note_taken_away(self.context)
        of_data = any(one.fault.startswith(("data.", "drift.")) for one in self.log.open_faults())
        if of_data and self.audit is not None:
            # What cannot be asked now is told by the look at the fault proxy.
            with contextlib.suppress(TargetError):
                self.audit.note_written()


def run_name(folder: Path) -> str:
    """What a trial is called where those of all campaigns are: ``CAMPAIGN-TRIAL``."""
    campaign = folder.parent if folder.parent.name != "trials" else folder.parent.parent
    return f"{campaign.name}-{folder.name}"
