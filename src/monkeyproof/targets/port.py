"""The target port: what faults and healers may ask of a system under test.

A target has a name, the file that describes it, and *capabilities*. A capability is a small Protocol of its
own; a fault or a remedy asks for the one it needs, and is refused in plain words where it is missing. The
embedded stack and a cluster differ in how a thing is done, not in what is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import Refusal
from monkeyproof.types import Json

C = TypeVar("C")


class Target(Protocol):
    """A system under test, opened for control."""

    @property
    def file(self) -> TargetFile:
        """What the target's file says of it."""

    def find(self, capability: type[C]) -> C | None:
        """The target's implementation of a capability, or None where it has none."""

    def close(self) -> None:
        """Give back connections. What was injected through them may end with them."""


def require(target: Target, capability: type[C]) -> C:
    """The capability, or a refusal.

    Raises:
        Refusal: the target does not offer it.
    """
    found = target.find(capability)
    if found is None:
        raise Refusal(
            f"target {target.file.name!r} offers no {_words(capability.__name__)} control",
            "choose an experiment that does not need it, or describe it in the target file",
        )
    return found


def _words(name: str) -> str:
    """``ArtifactFiles`` as people say it."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


@dataclass(frozen=True, slots=True)
class Replica:
    """One scoring process or pod."""

    name: str
    pid: int | None
    """None while it is down."""
    state: str
    """starting, ready, paused, down or backing_off."""
    drained: bool
    """Whether the front door sends it nothing."""
    link: str
    """The link between the front door and this replica."""
    metrics_url: str
    """Where its telemetry is scraped, past every link that a fault can sit on."""
    starts: int = 1
    """How often it was started: a growth tells of deaths between two looks."""


@runtime_checkable
class Replicas(Protocol):
    """Control over the scoring processes."""

    def list(self) -> Sequence[Replica]: ...

    def kill(self, name: str) -> Replica:
        """SIGKILL; returns the replica as it was before. The platform's own supervisor may restart it."""

    def pause(self, name: str, lease_s: float | None = None) -> None:
        """Stop it. With a lease, whoever holds it resumes it by itself once that is not renewed."""

    def resume(self, name: str) -> None: ...

    def restart(self, name: str) -> None:
        """End it, cleanly if it can, and start it anew at once."""

    def drain(self, name: str) -> None:
        """Have the front door send it nothing. Refused for the last one that still serves."""

    def undrain(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class StartCondition:
    """What the next start of a scoring process meets."""

    delay_s: float = 0.0
    """From its end, or from now where it has ended, to its start."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to its own, for as long as the condition is in force."""


@runtime_checkable
class Starts(Protocol):
    """Control over how a scoring process ends, and over how its platform starts it anew."""

    def end(
        self, name: str, condition: StartCondition, *, notice_s: float = 0.0, lease_s: float | None = None
    ) -> Replica:
        """SIGTERM, and SIGKILL if it is still there after ``notice_s``; at once where that is 0.

        Returns the replica as it was before. Its next start meets the condition, which ends by itself when its
        delay is over, when it is released, or once its lease is not renewed.
        """

    def conditions(self) -> Mapping[str, StartCondition]:
        """Those in force, by replica, each with the delay that is left."""

    def release(self, name: str) -> bool:
        """Take it back: what waits starts at once, and what runs in another environment is started anew.

        False if there was none any more.
        """


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version in the model registry."""

    version: str
    sha256: str
    """Digest of the artifact as it was published; "" if its publisher gave none."""
    artifact: str
    """Where the artifact lies, as the registry says."""
    accuracy: float | None
    """On the publisher's validation set, if it was tagged with it."""
    tags: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Registry(Protocol):
    """A model registry with aliases. Every call is bounded in time and raises TargetError if it fails."""

    def champion(self) -> str:
        """The version that the champion alias points to."""

    def set_champion(self, version: str) -> None: ...

    def versions(self) -> Sequence[ModelVersion]:
        """All versions, newest first."""

    def download(self, version: str, to: Path) -> Path:
        """Fetch the version's artifact into the folder ``to``; returns the model file."""


@runtime_checkable
class Artifacts(Protocol):
    """What the registry's artifacts are made of: a tag says what they were when they were published."""

    def digests(self, version: str) -> Mapping[str, str]:
        """Digest of each artifact that can be had within a moment, by its name; at least of one of ``version``.

        Empty if that cannot be had: it is too large, or the registry does not serve it.
        """


@runtime_checkable
class ArtifactFiles(Protocol):
    """Where the registry's artifacts lie: on this machine, so that they can be changed and put back."""

    def file_of(self, version: str) -> Path:
        """The model file of a version, whether or not it is there. Raises TargetError if that is not known."""


@runtime_checkable
class Publishing(Protocol):
    """Publishing a version of the model, as those who train it do. What was published can be withdrawn again."""

    def publish(self, model: Path, mark: str, tags: Mapping[str, str]) -> str:
        """Make a file the newest version; returns it. ``mark`` is a word of the caller's, known before the act."""

    def published(self, mark: str) -> Sequence[str]:
        """Versions that were published with this mark and not withdrawn since."""

    def withdraw(self, mark: str) -> None:
        """Delete them, and their files. An alias of one of them would go with it. Idempotent."""

    def set_tag(self, version: str, name: str, value: str) -> None:
        """Change one tag of a version."""


@runtime_checkable
class Deletion(Protocol):
    """Deleting versions from the registry in a way that can be taken back, bit by bit."""

    def record(self, version: str) -> Mapping[str, Json]:
        """All that is needed to put the version back, once it is deleted."""

    def delete(self, version: str) -> None:
        """Delete it, through the registry's own interface."""

    def put_back(self, version: str, record: Mapping[str, Json]) -> bool:
        """Undo ``delete``; False if it is there, deleted or not, as somebody else left it. Idempotent."""


@runtime_checkable
class OtherModels(Protocol):
    """Models of other people's, that look at home in this registry and are not."""

    def make(self, kind: str, to: Path) -> Path:
        """Train one into the folder ``to``; returns its file.

        Args:
            kind: ``other_purpose`` answers another question from the same columns; ``other_columns`` expects as
                many columns in another order; ``fewer_columns`` expects fewer.
        """


@runtime_checkable
class Processes(Protocol):
    """A target that runs on this machine, as processes."""

    def roots(self) -> Sequence[int]:
        """Ids of processes from which all others of the target descend."""


@dataclass(frozen=True, slots=True)
class TrialLoad:
    """What became of loading a model in a process of its own and asking it for predictions."""

    ok: bool
    why: str
    """ "" if ok; else what went wrong: the digest differs, the process died by signal 11, ..."""
    predictions: Sequence[float] = ()


@runtime_checkable
class Models(Protocol):
    """Loading a model where it can do no harm: a pickled model with one flipped bit may crash its process."""

    def trial_load(self, model: Path, rows: Sequence[Sequence[float]]) -> TrialLoad: ...


@runtime_checkable
class Features(Protocol):
    """The online feature store, past every link that a fault can sit on."""

    def read(self, entities: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        """Feature vectors as stored; None for an entity that has none."""

    def snapshots(self) -> Sequence[str]:
        """Names of the snapshots, oldest first."""

    def take_snapshot(self) -> str:
        """Copy all features aside; returns the snapshot's name."""

    def restore(self, snapshot: str) -> int:
        """Put a snapshot's features back; returns how many entities were written."""


@runtime_checkable
class Snapshots(Protocol):
    """Looking into a snapshot of the feature store before it is trusted."""

    def read_snapshot(self, snapshot: str, entities: Sequence[str]) -> Mapping[str, Sequence[float] | None]:
        """Feature vectors as the snapshot has them; None for an entity that it lacks."""


@runtime_checkable
class Serving(Protocol):
    """How replicas get at features."""

    def feature_mode(self) -> str:
        """``live`` (ask the store, short-lived cache) or ``snapshot`` (the last good snapshot, no store)."""

    def set_feature_mode(self, mode: str, snapshot: str = "") -> None: ...

    def forget_features(self) -> None:
        """Have every replica drop its cached features."""


@runtime_checkable
class Pins(Protocol):
    """Holding single replicas to one version of the model, whatever the registry says."""

    def pinned(self) -> Mapping[str, str]:
        """Version, by name of the replica."""

    def pin(self, replica: str, version: str) -> None: ...

    def unpin(self, replica: str) -> None: ...


@dataclass(frozen=True, slots=True)
class PipelineStatus:
    """The stream of new records into the feature store."""

    quarantining: bool
    """Whether batches are held to the strict, statistical validation."""
    batches_written: int
    batches_quarantined: int
    last_position: int
    """Absolute position of the last record that was read."""
    last_written_position: int
    """Absolute position of the last record that was written into the feature store."""
    records_read: int = 0
    """In batches that were written or set aside: fewer than positions went by are records that never came."""
    batches_rejected: int = 0
    """That broke the schema: asked for again and again, until the source forgets them."""
    last_rejection: str = ""
    """Why the last of those was rejected."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """An answer that a user could have got, and the label that came for it later."""

    position: int
    """Of the record that brought the label."""
    entity: str
    predicted: int
    label: int


@runtime_checkable
class Feedback(Protocol):
    """Labels that come back for answers that were given."""

    def latest(self, count: int) -> Sequence[Labelled]:
        """The newest ``count`` of them, newest first."""


@runtime_checkable
class Pipeline(Protocol):
    """Control over what enters the feature store."""

    def status(self) -> PipelineStatus: ...

    def quarantine(self, on: bool) -> None:
        """Set batches aside that stray from the reference statistics, instead of writing them."""


@dataclass(frozen=True, slots=True)
class Toxic:
    """A network fault on a link. ``kind`` and ``parameters`` are those of monkeyproof.faults.proxy.server."""

    link: str
    kind: str
    parameters: Mapping[str, Json] = field(default_factory=dict)
    id: str = ""
    """Chosen by the caller, so that the undo is on disk before the fault exists; "" lets the proxy choose."""
    lease_s: float | None = None
    """The proxy drops it by itself when it was not renewed for so long. None: only with its owner's connection."""


@runtime_checkable
class Links(Protocol):
    """Network paths inside the target that pass through the fault proxy."""

    def list(self) -> Sequence[str]: ...

    def add(self, toxic: Toxic) -> str:
        """Put a fault on a link; returns its id. It ends with this target's connection, at the latest."""

    def remove(self, toxic_id: str) -> bool:
        """Take it away; False if it was gone already."""

    def stats(self, toxic_id: str) -> Mapping[str, Json]:
        """What it did so far: ``affected`` requests or connections, ``delayed_ms`` in total, and more by kind."""

    def active(self) -> Sequence[str]:
        """Ids of all toxics on all links, whoever owns them."""


LEASE_S = 5.0
"""How long a fault outlasts a harness that stands still."""


@runtime_checkable
class Leases(Protocol):
    """Faults that end by themselves unless they are renewed, wherever they sit."""

    def renew(self) -> Mapping[str, str]:
        """Renew those that were injected through this target; of each that ended meanwhile, its id and why."""


@runtime_checkable
class Telemetry(Protocol):
    """What a healer may see: the target's own dashboards, never the harness's plan."""

    def metrics_urls(self) -> Mapping[str, str]:
        """Name of each part (``replica-1``, ``pipeline``) to its Prometheus endpoint."""

    def canary(self) -> Path:
        """The healer's own golden set (same format as the prober's, other entities)."""

    def canary_url(self) -> str:
        """Where to ask for predictions, as a user would."""

    def healer_registry(self) -> Registry:
        """The registry over the healer's own link, which can be broken."""


@runtime_checkable
class Resettable(Protocol):
    """A target that can put itself back between trials: what a healer changed must not leak into the next."""

    def reset(self) -> Sequence[str]:
        """Restore the declared state: champion, features, feature mode, quarantine, drains, dead replicas.

        Returns one sentence for each thing that had to be changed; nothing if all was as declared.
        """
