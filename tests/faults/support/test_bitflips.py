"""Flipped bits: as many as asked for, anywhere, and reverted by the same flips."""

from __future__ import annotations

import hashlib
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monkeyproof.errors import TargetError, UsageError
from monkeyproof.faults.support.bitflips import Flips, digest_of, exponent_bits, flip_in_file, random_bits


def differing_bits(one: bytes, other: bytes) -> int:
    return int(np.bitwise_count(np.frombuffer(one, np.uint8) ^ np.frombuffer(other, np.uint8)).sum())


@given(st.binary(min_size=1, max_size=300), st.integers(0, 2**32), st.data())
def test_exactly_so_many_bits_differ_and_the_same_flips_undo_them(data, seed, draw):
    count = draw.draw(st.integers(1, 8 * len(data)))
    flips = random_bits(buffer := bytearray(data), count, np.random.default_rng(seed))
    flips.apply(buffer)
    assert differing_bits(bytes(buffer), data) == count
    assert (random_bits(bytearray(data), count, np.random.default_rng(seed)).bits == flips.bits).all()
    flips.apply(buffer)
    assert bytes(buffer) == data


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from([0.05, 0.3, 0.7]))
def test_every_bit_is_as_likely(seed, share):
    rng, hits = np.random.default_rng(seed), np.zeros(64)
    for _ in range(2000):
        hits[random_bits(bytearray(8), int(64 * share), rng).bits] += 1
    expected = 2000 * int(64 * share) / 64
    assert abs(hits - expected).max() < 6 * expected**0.5


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("bit", [None, 0, 4])
def test_only_exponents_change_in_so_many_weights(dtype, bit):
    weights = np.random.default_rng(1).normal(size=(40, 30)).astype(dtype)
    before = weights.copy()
    flips = exponent_bits(weights, 100, np.random.default_rng(2), bit=bit)
    flips.apply(weights)
    changed = weights.view(np.dtype(dtype).str.replace("f", "u")) != before.view(
        np.dtype(dtype).str.replace("f", "u")
    )
    assert changed.sum() == len(flips.bits) == 100
    fraction, new = np.frexp(before[changed].astype("f8"))[0], weights[changed].astype("f8")
    usual = np.isfinite(new) & (abs(new) > np.finfo(np.dtype(dtype).newbyteorder("=")).tiny)
    assert usual.sum() > 60
    assert (np.frexp(new[usual])[0] == fraction[usual]).all()
    if bit is not None:
        steps = np.frexp(new[usual])[1] - np.frexp(before[changed].astype("f8")[usual])[1]
        assert set(abs(steps)) == {2**bit}
    flips.apply(weights)
    assert weights.tobytes() == before.tobytes()


def test_the_highest_bit_of_an_exponent():
    weights = np.array([0.5], np.float32)
    exponent_bits(weights, 1, np.random.default_rng(1), bit=7).apply(weights)
    assert weights[0] == 2.0**127


def test_a_model_in_a_file_still_loads_and_only_its_digest_tells(tmp_path):
    path = tmp_path / "model.pickle"
    path.write_bytes(pickle.dumps(np.random.default_rng(1).normal(size=5000)))
    before, size = digest_of(path), path.stat().st_size
    assert before == hashlib.sha256(path.read_bytes()).hexdigest()
    # In the weights themselves, which are nearly all of it.
    flips = Flips(np.array([8 * 20_000 + 3, 8 * 30_000 + 6]))
    flip_in_file(path, flips)
    assert len(pickle.loads(path.read_bytes())) == 5000  # noqa: S301
    assert digest_of(path) != before
    assert path.stat().st_size == size
    flip_in_file(path, flips)
    assert digest_of(path) == before


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda rng: random_bits(bytearray(2), 17, rng), UsageError, "17 is not in 1 to 16"),
        (lambda rng: random_bits(bytearray(2), 0, rng), UsageError, "0 is not in 1 to 16"),
        (lambda rng: random_bits(b"ab", 1, rng), UsageError, "read-only"),
        (lambda rng: random_bits(np.ones((4, 4))[:, ::2], 1, rng), UsageError, "contiguous memory"),
        (lambda rng: random_bits([1.0], 1, rng), UsageError, "contiguous memory"),
        (lambda rng: exponent_bits(np.ones(4, int), 1, rng), UsageError, "no exponent"),
        (lambda rng: exponent_bits(np.ones(4), 1, rng, bit=11), UsageError, "bits 0 to 10, not 11"),
        (lambda _: Flips(np.array([99])).apply(bytearray(2)), UsageError, "no bit 99"),
    ],
)
def test_mistakes_are_reported(make, error, words):
    with pytest.raises(error) as refusal:
        make(np.random.default_rng(1))
    assert words in str(refusal.value)


def test_a_file_that_cannot_be_changed(tmp_path):
    flips = Flips(np.array([1]))
    with pytest.raises(TargetError, match="cannot be changed"):
        flip_in_file(tmp_path / "none", flips)
    (tmp_path / "empty").touch()
    with pytest.raises(TargetError, match="cannot be changed"):
        flip_in_file(tmp_path / "empty", flips)
    with pytest.raises(TargetError, match="cannot be read"):
        digest_of(tmp_path / "none")
