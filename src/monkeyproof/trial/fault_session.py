"""A fault session: an open target with an undo log, a watchdog and leases, in which faults may be injected.

Trials and manual injection both use it, so that manual injection is as safe as a trial.
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
from monkeyproof.targets.opening import is_down
from monkeyproof.targets.port import Target
from monkeyproof.trial.cleanup import record_missing_faults
from monkeyproof.undo.log import begin, undo_dir


class FaultSession:
    """One undo log from its first line to its last, with the safeguards that revert its faults in any case."""

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
            exits: the stack that receives its end; to be closed after the revert, before target and history.
            ends_group: whether the process group that this process leads is the harness's own, and ends with it.

        Raises:
            Refusal: the undo log cannot be written, or no watchdog could revert faults after a kill.
        """
        folder = writer.folder
        self.audit: Audit | None = None
        self.log = begin(undo_dir() / f"{run_name(folder)}.jsonl")
        # Closed after the log: the watchdog still watches a process that is killed while it closes the log.
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

    def begin_audit(self) -> None:
        """Take the snapshot of the target to which the audit compares it at the end."""
        self.audit = Audit.begin(self.context.target, self.context.folder)

    def why_target_ended(self) -> str:
        """Why nothing of the target can be measured or reverted any more; "" while it exists."""
        down = is_down(self.context.target.file)
        return "the embedded target ended in the middle of the trial" if down else ""

    def why_too_long(self) -> str:
        """Why a fault must not stay active any longer; "" if none exceeds its limit."""
        context = self.context
        return context.active_faults.why_too_long(context.target.file.windows, context.clock.monotonic_s())

    def revert_all(self) -> NotReverted | None:
        """Revert every open fault. Returns the error instead of raising it: the audit must follow in any case."""
        try:
            revert()
        except NotReverted as error:
            return error
        except Exception as error:  # Also a bug of this harness must not skip the audit that follows.
            words = ", ".join(f"{one.fault} on {one.subject}" for one in self.log.open_faults())
            return NotReverted(
                f"reverting what was injected failed: {error!r} ({words or 'the open faults are not known'})"
            )
        return None

    def _before_revert(self) -> None:
        self._safeguards.renew_last_time()
        record_missing_faults(self.context)
        of_data = any(one.fault.startswith(("data.", "drift.")) for one in self.log.open_faults())
        if of_data and self.audit is not None:
            # If the proxy does not answer now, its later audit reports that.
            with contextlib.suppress(TargetError):
                self.audit.record_written()


def run_name(folder: Path) -> str:
    """The name of a trial among those of all campaigns: ``CAMPAIGN-TRIAL``."""
    campaign = folder.parent if folder.parent.name != "trials" else folder.parent.parent
    return f"{campaign.name}-{folder.name}"
