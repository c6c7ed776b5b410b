"""The fault that does nothing: the specification of a fault, the control arm of a sham, and a test fixture."""

from __future__ import annotations

from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, inject
from monkeyproof.targets.port import Target
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo

__all__ = ["nothing", "undo_nothing"]


@fault(evidence="that nothing was done", undo="nothing to revert", healing="none: acting on it is a false heal")
def nothing() -> dict[str, Json]:
    """Inject nothing, with every step that a fault has: intent, act, evidence, and an undo."""
    return inject(
        Injection(
            fault="noop.nothing",
            subject="nothing",
            parameters={},
            apply=lambda: None,
            evidence=lambda _: Evidence("nothing was done, as intended"),
            undo=Undo("monkeyproof.faults.noop:undo_nothing", {}),
        )
    )


def undo_nothing(target: Target) -> str:  # noqa: ARG001
    """Undo of ``nothing``."""
    return "there was nothing to revert"
