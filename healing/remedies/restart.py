"""Start a replica anew. Nothing of it stays in force, so nothing has to be lifted."""

from __future__ import annotations

from monkeyproof.healing.actuators import Actuators
from monkeyproof.healing.remedy import remedy
from monkeyproof.targets.port import Replicas


@remedy("restart", needs=(Replicas,))
def restart(actuators: Actuators, subject: str) -> str:
    """Start a replica anew."""
    actuators.of(Replicas).restart(subject)
    return f"{subject} was started anew"
