"""What the toxics on values make of replies, without any network: bounds, lots, and forms."""

from __future__ import annotations

import numpy as np
import pytest

from monkeyproof.faults.proxy.resp import values
from monkeyproof.faults.proxy.resp.framing import Read
from monkeyproof.faults.proxy.resp.values import ReadValue, ValueMemory, name_chosen, noted
from monkeyproof.faults.proxy.toxics.schema_mismatch import SchemaMismatch
from monkeyproof.faults.proxy.toxics.stale_values import StaleValues
from monkeyproof.faults.proxy.toxics.wrong_entity import WrongEntity


def parts(**found: bytes | None) -> list[ReadValue]:
    return [ReadValue(Read(b"GET", key.encode()), value) for key, value in found.items()]


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_the_share_is_held_among_many_keys(share: float) -> None:
    hit = [name_chosen(7, share, b"key", b"features:%d" % number) for number in range(20_000)]
    # Five standard deviations.
    assert abs(sum(hit) / len(hit) - share) < 5 * (share * (1 - share) / len(hit)) ** 0.5
    others = [name_chosen(8, share, b"key", b"features:%d" % number) for number in range(20_000)]
    both = sum(one and other for one, other in zip(hit, others, strict=True)) / len(hit)
    assert abs(both - share**2) < 0.02


def test_memory_is_bounded_in_number_and_in_bytes() -> None:
    memory = ValueMemory(most=3)
    assert [memory.put(Read(b"GET", b"%d" % number), b"x") for number in range(5)] == [True] * 3 + [False] * 2
    assert memory.put(Read(b"GET", b"1"), b"y")  # In place of what was.
    assert memory.refused == 2
    assert memory.values[Read(b"GET", b"1")] == b"y"
    wide = ValueMemory()
    mebibyte = bytes(1 << 20)
    kept = sum(wide.put(Read(b"GET", b"%d" % number), mebibyte) for number in range(100))
    assert kept == values.MAX_REMEMBERED_BYTES // (1 << 20) - 1
    assert wide.put(Read(b"GET", b"0"), b"small")
    assert wide.put(Read(b"GET", b"new"), mebibyte[:1024])


def test_what_is_not_remembered_stays_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MAX_REMEMBERED_BYTES", 300)
    rewriter = StaleValues(share=1, seed=1).new_state()
    rewriter.change(parts(a=b"1", b=b"1", c=b"1"))
    assert rewriter.change(parts(a=b"2", b=b"2", c=b"2")) == parts(a=b"1", b=b"1", c=b"2")
    assert rewriter.counts() == {"remembered": 2, "not_remembered": 2}


def test_a_wrong_entity_is_never_the_right_one() -> None:
    toxic = WrongEntity(share=1, seed=1)
    rewriter = toxic.new_state()
    assert rewriter.change(parts(a=b"1")) == parts(a=b"1")  # No other is known.
    assert rewriter.change(parts(b=b"1")) == parts(b=b"1")  # Nor one that differs.
    assert rewriter.change(parts(c=b"3")) == parts(c=b"1")
    assert rewriter.change(parts(a=b"1")) == parts(a=b"3")
    assert rewriter.change(parts(z=None)) == parts(z=None)  # A value that no entity has stays so.
    assert rewriter.counts() == {"donors": 3, "without_donor": 2}


def test_all_fields_of_an_entity_come_from_the_same_other_one() -> None:
    rewriter = WrongEntity(share=1, seed=3).new_state()

    def row(key: str) -> list[ReadValue]:
        return [ReadValue(Read(b"HGET", key.encode(), name), key.encode() + name) for name in (b"x", b"y", b"z")]

    for number in range(20):
        rewriter.change(row(f"e{number}"))
    got = [part.value for part in rewriter.change(row("e5"))]
    donor = got[0][:-1]
    assert donor != b"e5"
    assert got == [donor + b"x", donor + b"y", donor + b"z"]


def test_rows_of_packed_numbers_change_their_type() -> None:
    pack = np.array([1.5, 1e300], dtype="<f8")
    row = ((b"a", pack.tobytes()), (b"b", pack.tobytes()))
    (part,) = (
        SchemaMismatch(share=1, seed=1, change="float32")
        .new_state()
        .change([ReadValue(Read(b"HGETALL", b"h"), row)])
    )
    with np.errstate(over="ignore"):
        narrow = pack.astype("<f4").tobytes()
    assert part.value == ((b"a", narrow), (b"b", narrow))


def test_a_change_is_described_in_few_words() -> None:
    before, after = parts(a=b"1234567890abcdef-", b=None, c=b"x"), parts(a=None, c=b"x")
    assert noted(before, after) == [
        {"asked": ["GET", "a"], "held": f"17 bytes ({b'1234567890abcdef'.hex()}...)", "given": "nil"},
        {"asked": ["GET", "b"], "held": "nil", "given": "nothing"},
    ]
