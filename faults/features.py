"""Faults of the online feature store, as the replicas see it."""

from __future__ import annotations

from monkeyproof.faults.network import block_link
from monkeyproof.repertoire import fault
from monkeyproof.targets.port import Links
from monkeyproof.types import Json

__all__ = ["outage"]


@fault(
    needs=(Links,),
    evidence="a connection of our own is broken off, and at least one of the replicas'",
    undo="the link is open again; by itself when the lease runs out",
    healing="serve the last good snapshot",
    draw=lambda rng, target, intensity: {} if "replica->features" in target.links else None,  # noqa: ARG005
)
def outage(
    link: str = "replica->features",
    mode: str = "reset",
) -> dict[str, Json]:
    """Cut the replicas off from the feature store: connections are reset (or refused: ``refuse-like``).

    Proven by a connection of our own that is broken off, and by at least one of the replicas'.
    """
    return block_link("features.outage", link, mode, others_needed=True)
