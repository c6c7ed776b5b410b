"""The model registry of a target, its artifacts, and the models themselves.

Every method is bounded in time and raises TargetError if the registry fails or does not answer. Versions are the
registry's own names for them, as text; digests are SHA-256 in hexadecimal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from monkeyproof.types import Json


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in the model registry."""

    version: str
    sha256: str
    """Digest of the artifact as it was published; "" if its publisher gave none."""
    artifact: str
    """Where the artifact lies, as the registry says."""
    accuracy: float | None
    """On the publisher's validation set, from 0 to 1; None if it was not tagged with it."""
    tags: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Registry(Protocol):
    """A model registry with aliases."""

    def champion(self) -> str:
        """The version that the champion alias points to."""

    def set_champion(self, version: str) -> None:
        """Point the champion alias to a version."""

    def versions(self) -> Sequence[ModelVersion]:
        """All versions, newest first."""

    def download(self, version: str, to: Path) -> Path:
        """Fetch the version's artifact into the folder ``to``; returns the model file."""


@runtime_checkable
class Artifacts(Protocol):
    """The bytes that the registry serves: a tag says only what they were when they were published."""

    def digests(self, version: str) -> Mapping[str, str]:
        """Digest of each artifact that can be read within a moment, by its name; at least of one of ``version``.

        Empty if that cannot be read: it is too large, or the registry does not serve it.
        """


@runtime_checkable
class ArtifactFiles(Protocol):
    """The files of the registry's artifacts, on this machine, so that they can be changed and restored."""

    def file_of(self, version: str) -> Path:
        """The model file of a version, whether or not it exists. Raises TargetError if its place is not known."""


@runtime_checkable
class Publishing(Protocol):
    """Publishing a version of the model, as a training job does, in a way that can be withdrawn again."""

    def publish(self, model: Path, mark: str, tags: Mapping[str, str]) -> str:
        """Publish a file as the newest version.

        Args:
            mark: a word that the caller chose before the call, by which the version is found again.

        Returns:
            The version.
        """

    def published(self, mark: str) -> Sequence[str]:
        """Versions that were published with this mark and not withdrawn since."""

    def withdraw(self, mark: str) -> None:
        """Delete them and their files, and every alias that points to one of them. Idempotent."""

    def set_tag(self, version: str, name: str, value: str) -> None:
        """Change one tag of a version."""


@runtime_checkable
class Deletion(Protocol):
    """Deleting versions from the registry in a way that can be reverted exactly."""

    def record(self, version: str) -> Mapping[str, Json]:
        """All that ``restore`` needs, once the version is deleted. Raises TargetError: there is no such one."""

    def delete(self, version: str) -> None:
        """Delete it, through the registry's own interface."""

    def restore(self, version: str, record: Mapping[str, Json]) -> bool:
        """Undo ``delete``. Idempotent.

        Returns:
            False if the version is not deleted: it was restored before, by this or by another process.
        """


@runtime_checkable
class OtherModels(Protocol):
    """Models with the right file format and the wrong purpose or columns, as a wrong deployment brings them."""

    def make(self, kind: str, to: Path) -> Path:
        """Train one into the folder ``to``; returns its file.

        Args:
            kind: ``other_purpose`` answers another question from the same columns; ``other_columns`` expects as
                many columns in another order; ``fewer_columns`` expects fewer.

        Raises:
            UsageError: there is no such kind.
        """


@dataclass(frozen=True, slots=True)
class TrialLoad:
    """What came of loading a model in a process of its own and asking it for predictions."""

    ok: bool
    why: str
    """ "" if ok; else what went wrong: the digest differs, the process died by signal 11, ..."""
    predictions: Sequence[float] = ()
    """One for each row; empty unless ok."""


@runtime_checkable
class Models(Protocol):
    """Loading a model where it can do no harm: a pickled model with one flipped bit may crash its process."""

    def trial_load(self, model: Path, rows: Sequence[Sequence[float]]) -> TrialLoad:
        """Load a model file and ask it about rows of shape (n, features), in a process that may die of it."""
