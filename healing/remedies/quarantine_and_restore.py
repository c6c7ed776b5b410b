"""Keep stray records out of the feature store, and restore the last good features."""

from __future__ import annotations

from monkeyproof.healing.actuators import Actuators
from monkeyproof.healing.detect import Signal
from monkeyproof.healing.reference import batches
from monkeyproof.healing.remedy import LiftEvidence, remedy
from monkeyproof.healing.snapshots import good_snapshot
from monkeyproof.targets.port import Features, Pipeline, Serving, Snapshots

FEWEST_BATCHES = 3
"""New batches that must have come in before the quarantine may end."""


def records_are_clean(evidence: LiftEvidence) -> bool:
    """Whether new batches came in, and none of them strayed."""
    latest = batches(evidence.samples)
    return len(latest) >= FEWEST_BATCHES and all(evidence.reference.strayed(batch)[0] < 1.0 for batch in latest)


@remedy("end_quarantine", needs=(Pipeline,))
def end_quarantine(actuators: Actuators, subject: str) -> str:  # noqa: ARG001
    """Let new records reach the feature store again."""
    actuators.of(Pipeline).quarantine(False)
    return "new records reach the feature store again"


@remedy(
    "quarantine_and_restore",
    needs=(Pipeline, Features, Snapshots, Serving),
    masks=(Signal.STRAY_RECORDS, Signal.STRAY_FEATURES),
    lifted_by=end_quarantine,
    safe_when=records_are_clean,
    evidence_s=3.0,
    lifted_if_failed=True,  # The quarantine comes first, and may have begun although the rest failed.
)
def quarantine_and_restore(actuators: Actuators, subject: str) -> str:  # noqa: ARG001
    """Quarantine new records, restore the last good features, and have replicas forget the bad ones.

    The quarantine comes first, so that no bad record follows the restored features.
    """
    actuators.of(Pipeline).quarantine(True)
    name = good_snapshot(actuators)
    count = actuators.of(Features).restore(name)
    actuators.of(Serving).forget_features()
    return f"stray batches are set aside; {count} entities were restored from the snapshot {name}"
