"""What a remedy is: one value that holds its action, what it masks, and how and when it is lifted.

A file of ``healing/remedies/`` declares its remedies with the decorator ``remedy``; ``discover`` finds them.
How to add one: docs/extending/healer.md.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from monkeyproof.healing.actuators import Actuators
from monkeyproof.healing.detect import Signal
from monkeyproof.healing.diagnose import Cause
from monkeyproof.healing.reference import TargetReference
from monkeyproof.healing.samples import Sample


@dataclass(frozen=True, slots=True)
class LiftEvidence:
    """What the Elephant has seen lately, for the question whether a remedy can be lifted."""

    window: Sequence[Sample]
    """Oldest sample first."""
    reference: TargetReference
    subject: str
    """What the remedy was applied to, such as a replica's name."""
    for_s: float
    """How long the remedy must have been unnecessary."""

    @property
    def samples(self) -> Sequence[Sample]:
        """The samples of the last ``for_s`` seconds; none if the window does not reach back that far."""
        since_s = self.window[-1].t_s - self.for_s if self.window else 0.0
        reaches = bool(self.window) and self.window[0].t_s <= since_s
        return [sample for sample in self.window if sample.t_s > since_s] if reaches else ()


@dataclass(frozen=True, slots=True)
class TriedFor:
    """A place in the policy's row of one cause, for a remedy that the table of policy.py does not name."""

    cause: Cause
    before: str = ""
    """The remedy of that row before which it is tried; "": after all others of the row."""


@dataclass(frozen=True, slots=True)
class Remedy:
    """One action of the Elephant, and all that belongs to it. Made by the decorator ``remedy``."""

    name: str
    """As events, incidents and the policy name it."""
    action: Callable[[Actuators, str], str]
    """Acts on a subject in bounded time and returns what it did. Raises a TargetError if it cannot."""
    needs: tuple[type, ...]
    """Capabilities of the target's port that the action uses. Where one is missing, the action fails."""
    masks: frozenset[Signal]
    """Signals that are not detected while the remedy is in force: what still strays behind it harms no user."""
    lifted_by: Remedy | None
    """What ends it. None: it leaves nothing behind that has to be ended."""
    safe_when: Callable[[LiftEvidence], bool] | None
    """Whether lifting it is safe now."""
    evidence_s: float
    """For how long ``safe_when`` must look back, and how long the remedy stays in force at least."""
    lifted_if_failed: bool
    """Whether a part of it may be in force although the action failed, so that it is lifted all the same."""
    tried_for: tuple[TriedFor, ...]

    def __call__(self, actuators: Actuators, subject: str) -> str:
        return self.action(actuators, subject)

    @property
    def summary(self) -> str:
        """The first line of the action's docstring."""
        return (self.action.__doc__ or "").strip().partition("\n")[0]


def remedy(
    name: str,
    *,
    needs: Sequence[type] = (),
    masks: Iterable[Signal] = (),
    lifted_by: Remedy | None = None,
    safe_when: Callable[[LiftEvidence], bool] | None = None,
    evidence_s: float = 0.0,
    lifted_if_failed: bool = False,
    tried_for: Sequence[TriedFor] = (),
) -> Callable[[Callable[[Actuators, str], str]], Remedy]:
    """Declare the decorated function to be the action of the remedy ``name``; see Remedy for the rest.

    Raises:
        ValueError: the function has no docstring, or how the remedy is lifted is declared only in part.
    """

    masked = frozenset(masks)

    def declare(action: Callable[[Actuators, str], str]) -> Remedy:
        where = f"remedy {name!r} ({action.__module__}.{action.__qualname__})"
        if not (action.__doc__ or "").strip():
            raise ValueError(f"{where}: give the function a docstring; its first line says what the remedy does")
        if len({lifted_by is not None, safe_when is not None, evidence_s > 0.0}) > 1:
            raise ValueError(
                f"{where}: give all of lifted_by, safe_when and evidence_s (above 0), or none of them"
            )
        if lifted_by is None and (lifted_if_failed or masked):
            raise ValueError(
                f"{where}: masks and lifted_if_failed need lifted_by: without it they would never end"
            )
        return Remedy(
            name,
            action,
            tuple(needs),
            masked,
            lifted_by,
            safe_when,
            evidence_s,
            lifted_if_failed,
            tuple(tried_for),
        )

    return declare


def discover(package: str, folders: Iterable[str]) -> Mapping[str, Remedy]:
    """Import every module of a package and return the remedies that they declare, by name.

    Raises:
        ValueError: two functions declare the same name.
    """
    found: dict[str, Remedy] = {}
    for info in sorted(pkgutil.iter_modules(list(folders)), key=lambda info: info.name):
        module = importlib.import_module(f"{package}.{info.name}")
        for one in vars(module).values():
            if not isinstance(one, Remedy) or one.action.__module__ != module.__name__:
                continue  # Imported from the file of another remedy.
            if found.setdefault(one.name, one) is not one:
                first = found[one.name].action.__module__
                raise ValueError(f"remedy {one.name!r} is declared twice: in {first} and in {module.__name__}")
    return found
