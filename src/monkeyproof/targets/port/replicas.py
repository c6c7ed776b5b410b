"""Control over the scoring replicas of a target: ending, pausing, draining, and how they start again.

Every method of these capabilities raises TargetError where a replica of that name does not exist, or the platform
does not answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


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
    """How often it was started: a larger number than before shows a death that no poll saw."""


@runtime_checkable
class Replicas(Protocol):
    """Control over the scoring processes."""

    def list(self) -> Sequence[Replica]:
        """All replicas as they are now, those that are down as well."""

    def kill(self, name: str) -> Replica:
        """Send SIGKILL; returns the replica as it was before. The platform's own supervisor may restart it."""

    def pause(self, name: str, lease_s: float | None = None) -> None:
        """Stop it with SIGSTOP. With a lease, the platform resumes it unless ``Leases.renew`` comes in time."""

    def resume(self, name: str) -> None:
        """Let a paused replica run again (SIGCONT); does nothing to one that runs."""

    def restart(self, name: str) -> None:
        """End it, cleanly if it can, and start it again at once."""

    def drain(self, name: str) -> None:
        """Have the front door send it nothing. Raises TargetError for the last replica that still serves."""

    def undrain(self, name: str) -> None:
        """Have the front door send it requests again."""


@dataclass(frozen=True, slots=True)
class StartCondition:
    """What delays or changes the next start of a scoring process."""

    delay_s: float = 0.0
    """From its end, or from now where it has ended, to its start."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to its own environment, for as long as the condition is in force."""


@runtime_checkable
class Starts(Protocol):
    """Control over how a scoring process ends, and over how its platform starts it again."""

    def end(
        self, name: str, condition: StartCondition, *, notice_s: float = 0.0, lease_s: float | None = None
    ) -> Replica:
        """Send SIGTERM, and SIGKILL if it still runs after ``notice_s``; SIGKILL at once where that is 0.

        The condition applies to its next start. It ends when its delay is over, when it is released, or when its
        lease is not renewed.

        Returns:
            The replica as it was before.
        """

    def conditions(self) -> Mapping[str, StartCondition]:
        """Conditions in force, by replica, each with the delay that is left."""

    def release(self, name: str) -> bool:
        """End a condition: a delayed start happens at once, and a replica with a changed environment restarts.

        Returns:
            False if there was no condition any more.
        """


@runtime_checkable
class Processes(Protocol):
    """A target whose processes run on this machine."""

    def roots(self) -> Sequence[int]:
        """Pids of processes from which all others of the target descend. Raises TargetError: unknown."""
