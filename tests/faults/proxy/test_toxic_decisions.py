"""What toxics decide: by seed and number alone, in the shares and distributions that they promise."""

from __future__ import annotations

import math
from statistics import fmean, median, pstdev

import pytest

from monkeyproof.errors import UsageError
from monkeyproof.faults.proxy.toxics.corrupt_bytes import CorruptBytes
from monkeyproof.faults.proxy.toxics.drop_headers import DropHeaders
from monkeyproof.faults.proxy.toxics.latency import Latency
from monkeyproof.faults.proxy.toxics.reset import ResetConnections

N = 20_000


def drawn(**parameters) -> list[float]:
    latency = Latency(**{"low_ms": 0, "high_ms": 600_000, "seed": 5, **parameters})
    delays = [latency.delay_ms(n) for n in range(N)]
    again = Latency(**{"low_ms": 0, "high_ms": 600_000, "seed": 5, **parameters})
    assert [again.delay_ms(n) for n in reversed(range(N))] == delays[::-1]
    return delays


def test_uniform_fills_the_range():
    delays = drawn(low_ms=10, high_ms=30)
    assert min(delays) >= 10
    assert max(delays) <= 30
    assert fmean(delays) == pytest.approx(20, abs=0.15)


def test_normal_and_lognormal_have_the_mean_and_the_deviation_asked_for():
    for distribution in ("normal", "lognormal"):
        delays = drawn(distribution=distribution, mean_ms=200, jitter_ms=40)
        assert fmean(delays) == pytest.approx(200, rel=0.01)
        assert pstdev(delays) == pytest.approx(40, rel=0.03)
    # Skewed to the right: half of them lie below exp(mu), which is less than the mean.
    assert median(delays) == pytest.approx(200 / math.sqrt(1 + 0.2**2), rel=0.01)


def test_pareto_has_a_heavy_tail():
    tail = 2.5
    delays = drawn(distribution="pareto", mean_ms=100, tail=tail)
    smallest_ms = 100 * (tail - 1) / tail
    assert min(delays) >= smallest_ms
    assert fmean(delays) == pytest.approx(100, rel=0.05)
    # The share above k times the smallest is k ** -tail.
    for k in (1.5, 3):
        assert sum(delay > k * smallest_ms for delay in delays) / N == pytest.approx(k**-tail, rel=0.1)


def test_the_cap_and_the_floor_are_hard():
    delays = drawn(distribution="pareto", mean_ms=100, tail=1.1, low_ms=60, high_ms=500)
    assert min(delays) == 60
    assert max(delays) == 500


def test_constant_is_constant():
    assert set(drawn(distribution="constant", mean_ms=70)) == {70}


def test_the_share_of_connections_is_the_one_asked_for_and_repeats():
    reset = ResetConnections(seed=8, direction="response", share=0.3)
    struck = [reset.hits(n) for n in range(N)]
    assert sum(struck) / N == pytest.approx(0.3, abs=0.01)
    assert struck == [ResetConnections(seed=8, direction="response", share=0.3).hits(n) for n in range(N)]
    assert struck != [ResetConnections(seed=9, direction="response", share=0.3).hits(n) for n in range(N)]


def test_flips_do_not_depend_on_how_bytes_arrive():
    toxic = CorruptBytes(seed=3, direction="request", block_share=0.4, block_bytes=128)
    size = 400 * 128
    whole = toxic.flips(2, 0, size)
    assert len(whole) == pytest.approx(160, abs=30)
    for step in (1, 7, 128, 1000):
        found = [one for at in range(0, size, step) for one in toxic.flips(2, at, min(size, at + step))]
        assert found == whole
    assert toxic.flips(1, 0, size) != whole
    # Every bit of a byte, and every byte of a block, has its turn.
    assert {mask for _, mask in whole} == {1 << bit for bit in range(8)}
    assert len({at % 128 for at, _ in whole}) > 70


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"distribution": "gamma"}, "distribution is one of uniform, constant"),
        ({"distribution": "normal", "mean_ms": 10}, "normal needs a jitter_ms above 0"),
        ({"distribution": "pareto", "mean_ms": 10, "jitter_ms": 1}, "pareto takes no jitter_ms"),
        ({"distribution": "pareto", "mean_ms": 10, "tail": 1}, "tail is above 1"),
        ({"distribution": "constant", "mean_ms": 101}, "a mean_ms above 0 between low_ms and high_ms"),
        ({"mean_ms": 10}, "takes no mean_ms"),
        ({"direction": "upstream"}, "direction is 'request' or 'response'"),
    ],
)
def test_wrong_latencies_are_refused_in_words(parameters, words):
    with pytest.raises(UsageError, match=words):
        Latency(**{"low_ms": 0, "high_ms": 100, "seed": 1, **parameters})


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("", "names is empty"),
        ("x y", "'x y' is no name of a header"),
        ("etag, Content-Length", "without content-length the receiver cannot tell where the message ends"),
    ],
)
def test_headers_that_cannot_be_lost(names, words):
    with pytest.raises(UsageError, match=words):
        DropHeaders(names=names, seed=1)
