"""The toxic that gives the values of other entities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from monkeyproof.faults.proxy.hooks import READ
from monkeyproof.faults.proxy.resp.share_of_keys import ShareOfKeys, ValueRewriter
from monkeyproof.faults.proxy.resp.values import MAX_REMEMBERED, ReadValue, Value, ValueMemory, name_number
from monkeyproof.faults.proxy.toxic_registry import toxic

MAX_DONORS = 64


@toxic("wrong_entity", hook=READ, protocols=("redis",))
@dataclass(frozen=True, kw_only=True)
class WrongEntity(ShareOfKeys):
    """A share of the keys have another key's value: of one of the first that were read under the fault."""

    def new_state(self) -> ValueRewriter:
        memory = ValueMemory()
        donors: dict[bytes, None] = {}
        given: dict[bytes, bytes] = {}
        alone = 0

        def other_than(one: ReadValue) -> Value:
            key = one.read.key
            if key not in given and len(given) < MAX_REMEMBERED:
                values = {donor: memory.values.get(one.read._replace(key=donor)) for donor in donors}
                others = [donor for donor, value in values.items() if value not in (None, one.value)]
                if others:  # By lot, which every key draws anew.
                    given[key] = min(
                        others, key=lambda donor: name_number(self.seed, b"donor", key + b"\0" + donor)
                    )
            return memory.values.get(one.read._replace(key=given[key])) if key in given else None

        def change(values: Sequence[ReadValue]) -> list[ReadValue]:
            nonlocal alone
            for one in values:
                if self.may_touch(one.read.key) and one.value is not None:
                    if len(donors) < MAX_DONORS:
                        donors.setdefault(one.read.key)
                    if one.read.key in donors:
                        memory.put(one.read, one.value)
            found = []
            for one in values:
                if one.value is not None and self.hits(one.read.key):
                    other = other_than(one)
                    alone += other is None
                    found.append(one if other is None else replace(one, value=other))
                else:
                    found.append(one)
            return found

        return ValueRewriter(change, lambda: {"donors": len(donors), "without_donor": alone})
