"""Execute (the E of MAPE-K): what remedies act through, which is the target's port and what was known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from monkeyproof.clock import Clock
from monkeyproof.errors import TargetError
from monkeyproof.healing.samples import Canary
from monkeyproof.targets.port import Features, Target

C = TypeVar("C")

Vectors = Mapping[str, Sequence[float]]
"""Feature vectors by entity."""


class CannotHeal(TargetError):
    """A remedy found that it cannot help; the message says why."""


@dataclass(frozen=True, slots=True)
class Actuators:
    """The target's capabilities, and what the Elephant learned of the target while all was well."""

    target: Target
    clock: Clock
    canaries: Sequence[Canary]
    known: Vectors
    """Features of the canaries' entities while all was well."""
    version: str
    """The champion while all was well."""
    accuracy: float
    """Its accuracy on the canaries, 0 to 1."""

    def of(self, capability: type[C]) -> C:
        """Return the target's implementation of a capability.

        Raises:
            CannotHeal: the target does not offer the capability.
        """
        found = self.target.find(capability)
        if found is None:
            raise CannotHeal(f"the target offers no {capability.__name__.lower()} control")
        return found


def read_known(features: Features | None, canaries: Sequence[Canary]) -> Vectors:
    """Read the features of the canaries' entities as the store has them now; {} where there is no store to ask."""
    entities = [canary.entity for canary in canaries if canary.entity]
    if features is None or not entities:
        return {}
    return {entity: vector for entity, vector in features.read(entities).items() if vector is not None}
