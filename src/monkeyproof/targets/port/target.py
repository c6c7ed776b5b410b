"""A target that is open for control, and how a fault or a remedy asks it for a capability."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import Refusal

C = TypeVar("C")


class Target(Protocol):
    """A system under test, opened for control."""

    @property
    def file(self) -> TargetFile:
        """What the target's file says about it."""

    def find(self, capability: type[C]) -> C | None:
        """The target's implementation of a capability (a Protocol of this package), or None where it has none."""

    def close(self) -> None:
        """Close all connections. A fault that was injected through one may end with it."""


def require(target: Target, capability: type[C]) -> C:
    """The target's implementation of a capability, or a refusal.

    Raises:
        Refusal: the target does not offer it.
    """
    found = target.find(capability)
    if found is None:
        raise Refusal(
            f"target {target.file.name!r} offers no {_spaced(capability.__name__)} control",
            "choose an experiment that does not need it, or describe it in the target file",
        )
    return found


def _spaced(name: str) -> str:
    """``ArtifactFiles`` as ``artifact files``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


@runtime_checkable
class Resettable(Protocol):
    """A target that can restore itself between trials, so that no change by a healer leaks into the next trial."""

    def reset(self) -> Sequence[str]:
        """Restore the declared state: champion, features, feature mode, quarantine, drains, dead replicas.

        Returns:
            One sentence for each thing that had to be changed; nothing if all was as declared.

        Raises:
            TargetError: a part does not answer, or the state does not stay as it was restored.
        """
