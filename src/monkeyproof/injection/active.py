"""The harness's faults that are held at this moment: what they use of a target's limits, and since when."""

from __future__ import annotations

from monkeyproof.config.target_file import Windows

MARGIN_S = 5.0
"""For the proof of a fault, and for what a method does beside holding it."""


def bound_s(windows: Windows, hold_at_most_s: float = 0.0) -> float:
    """How long, in seconds, a fault may be active, whatever the method does; then the trial ends."""
    return max(windows.horizon_s, hold_at_most_s) + windows.after_revert_s + MARGIN_S


class ActiveFaults:
    """The faults of one trial that are held until something reverts them."""

    def __init__(self) -> None:
        self.hold_at_most_s = 0.0
        """The longest hold that the experiment asks for. The target's horizon counts where that is longer."""
        self._uses: dict[str, float] = {}
        self._faults: dict[str, tuple[float, dict[str, float]]] = {}
        self._ending = False

    def will_use(self, name: str, value: float) -> None:
        """Note what the next fault uses of a limit."""
        self._uses[name] = value

    def used(self, name: str) -> float:
        """What the active faults use of a limit together."""
        return sum(uses.get(name, 0.0) for _, uses in list(self._faults.values()))

    def begins(self, fault_id: str, now_s: float, *, held: bool) -> None:
        """A fault is about to act; it uses what was noted since the fault before it. Only held faults count."""
        uses, self._uses = self._uses, {}
        if held:
            self._ending = False
            self._faults[fault_id] = (now_s, uses)

    def ending(self) -> None:
        """The faults are being reverted, which may take longer than they were allowed to be active."""
        self._ending = True

    def ended(self, fault_id: str) -> None:
        """A fault is reverted."""
        self._faults.pop(fault_id, None)

    def clear(self) -> None:
        """Every fault is reverted."""
        self._faults.clear()

    def why_too_long(self, windows: Windows, now_s: float) -> str:
        """Why the trial may not go on; "" if all is well."""
        limit_s = bound_s(windows, self.hold_at_most_s)
        if not self._ending and any(now_s - since_s > limit_s for since_s, _ in list(self._faults.values())):
            return f"a fault was active for more than {limit_s:g} s, the most that the target's windows allow"
        return ""
