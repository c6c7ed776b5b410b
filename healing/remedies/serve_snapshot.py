"""Score with a snapshot of the features while the feature store does not answer, or has bad values."""

from __future__ import annotations

from monkeyproof.healing.actuators import Actuators
from monkeyproof.healing.detect import Signal
from monkeyproof.healing.remedy import LiftEvidence, remedy
from monkeyproof.healing.snapshots import good_snapshot
from monkeyproof.targets.port import Features, Serving, Snapshots


def store_answers(evidence: LiftEvidence) -> bool:
    """Whether the feature store answered on the replicas' link in every sample."""
    samples = evidence.samples
    return bool(samples) and all(sample.store_ok for sample in samples)


@remedy("serve_live", needs=(Serving,))
def serve_live(actuators: Actuators, subject: str) -> str:  # noqa: ARG001
    """Have the replicas ask the feature store again."""
    actuators.of(Serving).set_feature_mode("live")
    return "replicas ask the feature store again"


@remedy(
    "serve_snapshot",
    needs=(Features, Snapshots, Serving),
    masks=(Signal.STORE_DOWN, Signal.FEATURE_ERRORS, Signal.STRAY_FEATURES),
    lifted_by=serve_live,
    safe_when=store_answers,
    evidence_s=2.0,
)
def serve_snapshot(actuators: Actuators, subject: str) -> str:  # noqa: ARG001
    """Have the replicas use the newest good snapshot instead of the feature store."""
    name = good_snapshot(actuators)
    actuators.of(Serving).set_feature_mode("snapshot", name)
    return f"replicas use the snapshot {name}"
