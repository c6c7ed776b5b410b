"""The online feature store of a target, the pipeline that fills it, and how replicas read and label from it.

Every method raises TargetError if the store, the pipeline or a file of theirs cannot be read or written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@runtime_checkable
class Features(Protocol):
    """The online feature store, past every link that a fault can sit on."""

    def read(self, entities: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        """Feature vectors as stored, shape (features,) each; None for an entity that has none."""

    def snapshots(self) -> Sequence[str]:
        """Names of the snapshots, oldest first."""

    def take_snapshot(self) -> str:
        """Copy all features into a snapshot; returns its name."""

    def restore(self, snapshot: str) -> int:
        """Write a snapshot's features into the store; returns how many entities were written."""


@runtime_checkable
class Snapshots(Protocol):
    """Reading a snapshot of the feature store before it is trusted."""

    def read_snapshot(self, snapshot: str, entities: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        """Feature vectors as the snapshot has them, shape (features,) each; None for an entity that it lacks."""


@runtime_checkable
class Serving(Protocol):
    """Where replicas read features from."""

    def feature_mode(self) -> str:
        """``live`` (ask the store, short-lived cache) or ``snapshot`` (the last good snapshot, no store)."""

    def set_feature_mode(self, mode: str, snapshot: str = "") -> None:
        """Choose the mode, and for ``snapshot`` which one. Raises TargetError: there is no such mode or name."""

    def forget_features(self) -> None:
        """Have every replica drop its cached features."""


@runtime_checkable
class Pins(Protocol):
    """Holding single replicas to one version of the model, whatever the registry says."""

    def pinned(self) -> Mapping[str, str]:
        """Version, by name of the replica; replicas without a pin are left out."""

    def pin(self, replica: str, version: str) -> None:
        """Have a replica serve that version."""

    def unpin(self, replica: str) -> None:
        """Have a replica follow the registry again. Idempotent."""


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """The stream of new records into the feature store. Counts are since the pipeline started."""

    quarantining: bool
    """Whether batches must pass the strict, statistical validation."""
    batches_written: int
    batches_quarantined: int
    last_position: int
    """Absolute position of the last record that was read."""
    last_written_position: int
    """Absolute position of the last record that was written into the feature store."""
    records_read: int = 0
    """In batches that were written or quarantined. Fewer than the positions that passed: records were lost."""
    batches_rejected: int = 0
    """Batches that broke the schema: the pipeline fetches them again until the source forgets them."""
    last_rejection: str = ""
    """Why the last of those was rejected."""


@runtime_checkable
class Pipeline(Protocol):
    """Control over what enters the feature store."""

    def status(self) -> PipelineStatus:
        """The pipeline as it is now."""

    def quarantine(self, on: bool) -> None:
        """Quarantine batches that stray from the reference statistics, instead of writing them."""


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """An answer that a user could have got, and the label that came for it later."""

    position: int
    """Of the record that brought the label."""
    entity: str
    predicted: int
    label: int


@runtime_checkable
class Feedback(Protocol):
    """Labels that come back for answers that were given."""

    def latest(self, count: int) -> Sequence[LabelledAnswer]:
        """The newest ``count`` of them, newest first."""
