"""Faults of the online feature store, as the replicas see it."""

from __future__ import annotations

from monkeyproof.faults.network import block_link
from monkeyproof.types import Json

__all__ = ["outage"]


def outage(
    link: str = "replica->features",
    mode: str = "reset",
    configuration: object = None,  # noqa: ARG001
    secrets: object = None,  # noqa: ARG001
) -> dict[str, Json]:
    """Cut the replicas off from the feature store: connections are reset (or refused: ``refuse-like``).

    Proven by a connection of our own that is broken off, and by at least one of the replicas'.
    """
    return block_link("features.outage", link, mode, others_needed=True)
