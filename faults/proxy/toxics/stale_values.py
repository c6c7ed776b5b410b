"""The toxic that keeps values of a feature store as they were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from monkeyproof.faults.proxy.hooks import READ
from monkeyproof.faults.proxy.resp.share_of_keys import ShareOfKeys, ValueRewriter
from monkeyproof.faults.proxy.resp.values import ReadValue, ValueMemory
from monkeyproof.faults.proxy.toxic_registry import toxic


@toxic("stale_values", hook=READ, protocols=("redis",))
@dataclass(frozen=True, kw_only=True)
class StaleValues(ShareOfKeys):
    """A share of the keys have the value for ever that they had when they were first read under the fault."""

    def new_state(self) -> ValueRewriter:
        memory = ValueMemory()

        def change(values: Sequence[ReadValue]) -> list[ReadValue]:
            found = []
            for one in values:
                if self.hits(one.read.key):
                    if one.read in memory.values:
                        found.append(replace(one, value=memory.values[one.read]))
                        continue
                    memory.put(one.read, one.value)
                found.append(one)
            return found

        return ValueRewriter(change, lambda: {"remembered": len(memory.values), "not_remembered": memory.refused})
