"""The toxic that leaves values of a feature store out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.hooks import READ
from monkeyproof.faults.proxy.resp.framing import Read
from monkeyproof.faults.proxy.resp.share_of_keys import ShareOfKeys, ValueRewriter
from monkeyproof.faults.proxy.resp.values import ReadValue, name_chosen
from monkeyproof.faults.proxy.toxic_registry import toxic

HOWS = ("nil", "fewer")


@toxic("partial_answers", hook=READ, protocols=("redis",))
@dataclass(frozen=True, kw_only=True)
class PartialAnswers(ShareOfKeys):
    """Of a share of the keys the value is missing, or every other field by lot: nil, or (``fewer``) not there."""

    how: str = "nil"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.how not in HOWS:
            raise UsageError(f"how: {self.how!r} is not one of {', '.join(HOWS)}")

    def takes(self, key: bytes, name: bytes) -> bool:
        """Whether a field of a key that is hit is missing."""
        return name_chosen(self.seed, 0.5, b"field", key + b"\0" + name)

    def new_state(self) -> ValueRewriter:
        def missing(read: Read, name: bytes) -> bool:
            return self.hits(read.key) and (not name or self.takes(read.key, name))

        def change(values: Sequence[ReadValue]) -> list[ReadValue]:
            found = []
            for one in values:
                read, value = one.read, one.value
                if isinstance(value, tuple):
                    kept = tuple((name, each) for name, each in value if not missing(read, name))
                    found.append(replace(one, value=kept))
                elif value is None or not missing(read, read.field):
                    found.append(one)
                elif self.how == "nil":
                    found.append(replace(one, value=None))
            return found

        return ValueRewriter(change)
