"""What the toxics that change values of a feature store share: which keys they touch, and their record."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.hooks import ReadToxic
from monkeyproof.faults.proxy.resp.values import ReadValue, name_chosen, noted
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.types import Json

NOTED_VALUES = 32


@dataclass
class ValueRewriter:
    """A toxic at work: what it makes of the values of one reply, and its counters."""

    change: Callable[[Sequence[ReadValue]], list[ReadValue]]
    counts: Callable[[], Mapping[str, float]] = field(default=dict)
    changed: deque[dict[str, Json]] = field(default_factory=lambda: deque(maxlen=NOTED_VALUES))
    """The newest of what it changed in users' reads."""


@dataclass(frozen=True, kw_only=True)
class ShareOfKeys(ReadToxic):
    """Hits a ``share`` of the keys with a prefix, in every read."""

    share: float
    seed: int
    key_prefix: str = ""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"share: {self.share} is not in (0, 1]")

    @abstractmethod
    def new_state(self) -> ValueRewriter: ...

    def hits(self, key: bytes) -> bool:
        """Whether this key is one of those that are touched."""
        return self.may_touch(key) and name_chosen(self.seed, self.share, b"key", key)

    def may_touch(self, key: bytes) -> bool:
        return key.startswith(self.key_prefix.encode())

    def rewrite(self, active: ActiveToxic, values: Sequence[ReadValue]) -> list[ReadValue]:
        rewriter: ValueRewriter = active.state
        return rewriter.change(values)

    def note(self, active: ActiveToxic, before: Sequence[ReadValue], after: Sequence[ReadValue]) -> None:
        rewriter: ValueRewriter = active.state
        found = noted(before, after)
        active.count("changed_values", len(found))
        rewriter.changed.extend(found)

    def report(self, active: ActiveToxic) -> Mapping[str, Json]:
        rewriter: ValueRewriter = active.state
        return {**rewriter.counts(), "changed": list(rewriter.changed)}
