"""A toxic: the parameters and decisions of one kind of fault on a link, and the counters of one that is in force.

A kind of toxic is a frozen dataclass of checked parameters, in a file of its own in
``monkeyproof.faults.proxy.toxics``. It acts at one hook of a link (``monkeyproof.faults.proxy.hooks``). Its
decision for the n-th message, chunk or connection that it sees depends on ``(seed, n)`` alone: not on the clock,
not on other toxics.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from monkeyproof.errors import UsageError
from monkeyproof.types import Json

T = TypeVar("T", bound="ToxicKind")


class Hook(Generic[T]):
    """A place on a link where toxics act."""

    def __init__(self, name: str, interface: type[T], *, splits_messages: bool = False) -> None:
        self.name = name
        self.interface = interface
        """The class whose methods the link calls here."""
        self.splits_messages = splits_messages
        """Whether an HTTP link has to take messages apart for it, instead of passing them on whole."""

    def __repr__(self) -> str:
        return f"<hook {self.name}>"


class ToxicKind:
    """Base of all kinds. The decorator ``toxic`` sets the class variables."""

    kind: ClassVar[str] = ""
    protocols: ClassVar[tuple[str, ...]] = ()
    """Of the links that it can be put on."""
    hook: ClassVar[Hook[Any]]

    def hook_on(self, protocol: str) -> Hook[Any]:  # noqa: ARG002
        """Where a toxic with these parameters acts on a link of this protocol."""
        return self.hook

    def new_state(self) -> Any:
        """What one toxic in force remembers, as ``ActiveToxic.state``."""
        return None

    def placed(self, active: ActiveToxic, link: LinkView) -> None:
        """The link has the toxic, and live connections have met it."""

    def report(self, active: ActiveToxic) -> Mapping[str, Json]:  # noqa: ARG002
        """What its statistics say beyond the counters that all toxics have."""
        return {}

    def check(self, ok: bool, why: str) -> None:
        """Raise UsageError if the parameters are not ``ok``. For ``__post_init__``."""
        if not ok:
            raise UsageError(f"{self.kind}: {why}")


class Releasable(Protocol):
    """Something that a toxic holds back, and lets go of when the toxic is removed."""

    def release(self) -> None: ...


class RelayView(Protocol):
    """What a toxic may do to a connection of its link, and ask about it."""

    def reset(self) -> None: ...

    def hung_bytes(self) -> int:
        """How much waits unread because the link hangs, and for no other reason."""

    def blocked_bytes(self, active: ActiveToxic) -> int | None:
        """How much waits because this toxic blocks a direction; None if it blocks none here."""


class LinkView(Protocol):
    """What a toxic may ask about its link."""

    @property
    def hung(self) -> bool: ...

    @property
    def relays(self) -> Collection[RelayView]: ...

    def at(self, hook: Hook[T]) -> Sequence[tuple[ActiveToxic, T]]: ...


@dataclass(eq=False)
class ActiveToxic:
    """A toxic in force on a link: its counters, its state, and what it holds back at the moment."""

    id: str
    link: str
    toxic: ToxicKind
    seen: int = 0
    """Users' messages, chunks or connections that were decided on."""
    own_seen: int = 0
    """The same for the harness's own requests, which their X-Monkeyproof header marks."""
    affected: int = 0
    """Users' messages, chunks or connections that the fault really hit."""
    own_affected: int = 0
    counters: dict[str, float] = field(default_factory=dict)
    held: set[Releasable] = field(default_factory=set)
    sample: Callable[[], Mapping[str, float]] | None = None
    """Called for each report: measures what no counter can follow."""
    lease_s: float | None = None
    due_s: float = 0.0
    """When the lease runs out, unless its owner renews it before."""
    state: Any = field(init=False)

    def __post_init__(self) -> None:
        self.state = self.toxic.new_state()

    @property
    def kind(self) -> str:
        return self.toxic.kind

    def draw(self, own: bool) -> int:
        """The number of the next message, chunk or connection."""
        if own:
            self.own_seen += 1
            return self.own_seen - 1
        self.seen += 1
        return self.seen - 1

    def hit(self, own: bool) -> None:
        if own:
            self.own_affected += 1
        else:
            self.affected += 1

    def count(self, name: str, amount: float = 1) -> None:
        self.counters[name] = self.counters.get(name, 0) + amount

    def release(self) -> None:
        """Let go of everything that it holds."""
        for one in list(self.held):
            one.release()
        self.held.clear()

    def stats(self) -> dict[str, Json]:
        """All counters, as JSON."""
        found: dict[str, Json] = {
            "id": self.id,
            "link": self.link,
            "kind": self.kind,
            "seen": self.seen,
            "own_seen": self.own_seen,
            "affected": self.affected,
            "own_affected": self.own_affected,
            "pending": len(self.held),
            **self.counters,
        }
        if self.sample is not None:
            found.update(self.sample())
        found.update(self.toxic.report(self))
        return found
