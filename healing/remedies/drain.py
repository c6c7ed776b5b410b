"""Keep requests from a replica that is slow on its link, until its link is fast again."""

from __future__ import annotations

from monkeyproof.healing.actuators import Actuators
from monkeyproof.healing.detect import too_slow
from monkeyproof.healing.reference import SLOW_FLOOR_MS, canary_result
from monkeyproof.healing.remedy import LiftEvidence, remedy
from monkeyproof.targets.port import Replicas


def link_is_fast(evidence: LiftEvidence) -> bool:
    """Whether the replica answered every canary over its own link in time."""
    results = [canary_result(sample, evidence.subject) for sample in evidence.samples]
    threshold_ms = evidence.reference.slow_ms.get(evidence.subject, SLOW_FLOOR_MS)
    return bool(results) and all(one.latency_ms is not None and not too_slow(one, threshold_ms) for one in results)


@remedy("undrain", needs=(Replicas,))
def undrain(actuators: Actuators, subject: str) -> str:
    """Let a drained replica have requests again."""
    actuators.of(Replicas).undrain(subject)
    return f"{subject} gets requests again"


@remedy("drain", needs=(Replicas,), lifted_by=undrain, safe_when=link_is_fast, evidence_s=2.0)
def drain(actuators: Actuators, subject: str) -> str:
    """Send a replica no more requests."""
    actuators.of(Replicas).drain(subject)
    return f"{subject} gets no more requests"
