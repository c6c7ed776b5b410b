"""Links of a target that pass through the fault proxy, and leases of faults wherever they sit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from monkeyproof.types import Json

LEASE_S = 5.0
"""How long a fault outlasts a harness that is stopped or hangs."""


@dataclass(frozen=True, slots=True)
class Toxic:
    """A network fault on a link. ``kind`` and ``parameters`` are those of ``monkeyproof.faults.proxy``."""

    link: str
    kind: str
    parameters: Mapping[str, Json] = field(default_factory=dict)
    id: str = ""
    """Chosen by the caller, so that the undo is on disk before the fault exists; "" lets the proxy choose."""
    lease_s: float | None = None
    """The proxy drops the toxic when its lease is not renewed for so long. None: it ends with its connection."""


@runtime_checkable
class Links(Protocol):
    """Network paths inside the target that pass through the fault proxy.

    Every method raises TargetError if the proxy does not answer, or knows no such link or kind.
    """

    def list(self) -> Sequence[str]:
        """Names of all links."""

    def add(self, toxic: Toxic) -> str:
        """Put a toxic on a link; returns its id. It ends with this target's connection at the latest."""

    def remove(self, toxic_id: str) -> bool:
        """Remove a toxic; False if it had ended already."""

    def stats(self, toxic_id: str) -> Mapping[str, Json]:
        """What a toxic did so far: ``affected`` requests or connections, ``delayed_ms`` in total, more by kind."""

    def active(self) -> Sequence[str]:
        """Ids of all toxics on all links, whichever process owns them."""


@runtime_checkable
class Leases(Protocol):
    """Faults that end by themselves unless they are renewed, wherever they sit."""

    def renew(self) -> Mapping[str, str]:
        """Renew the leases of all faults that were injected through this target.

        Returns:
            For each fault that ended meanwhile, its id (or replica) and why.

        Raises:
            TargetError: what holds the leases does not answer.
        """
