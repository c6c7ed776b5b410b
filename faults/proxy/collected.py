"""Messages that a relay collects whole, because a toxic changes them."""

from __future__ import annotations

from collections.abc import Iterable

from monkeyproof.faults.proxy.toxic import ActiveToxic


class CollectedMessage:
    """A message that is collected whole. Its relay passes it on unchanged if one of its toxics is removed."""

    def __init__(self, actives: Iterable[ActiveToxic]) -> None:
        self.pieces: list[bytes] = []
        self.size_bytes = 0
        for active in actives:
            active.held.add(self)

    def add(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size_bytes += len(data)

    def release(self) -> None:
        raise NotImplementedError
