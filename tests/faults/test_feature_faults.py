"""The faults of the feature store, injected through a trial before a real Valkey: proof, undo, refusals."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import redis
from fault_world import RawServer, RunningProxy, Traffic, World, assert_undone, events, impatient
from store_world import ENTITIES, PASSWORD, Store, vector

from monkeyproof.clock import wait_for
from monkeyproof.config.limits import Limits
from monkeyproof.config.target_file import Link
from monkeyproof.errors import Refusal, Unproven, UsageError
from monkeyproof.faults import features, network
from monkeyproof.faults.features import answers, reach
from monkeyproof.faults.features.comparison import ask, differing
from monkeyproof.faults.features.read_paths import LINK, where_features_are_read
from monkeyproof.injection.inject import current, revert
from monkeyproof.record.history import Kind
from monkeyproof.targets import port
from monkeyproof.targets.links import ProxyLinks

pytest_plugins = ("store_fixtures",)


class Readers:
    """Users who read features again and again over one connection; ``got`` is what they read last, by name."""

    def __init__(
        self, connect: Callable[..., redis.Redis], names: list[str], link: str, **options: object
    ) -> None:
        self.got: dict[str, bytes | None] = {}
        self.rounds = 0
        self._stop = threading.Event()
        self._connect, self._names, self._link, self._options = connect, names, link, options
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        client = self._connect(self._link, **self._options)
        while not self._stop.wait(0.005):
            try:
                self.got = dict(zip(self._names, client.mget(self._names), strict=False))
            except redis.RedisError:
                continue
            self.rounds += 1

    def another_round(self) -> dict[str, bytes | None]:
        rounds = self.rounds
        assert wait_for(lambda: self.rounds > rounds + 1, within_s=10)
        return self.got

    def __enter__(self) -> Readers:
        self._thread.start()
        assert wait_for(lambda: self.rounds > 0, within_s=10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def readers(connect: Callable[..., redis.Redis]) -> Iterator[Readers]:
    with Readers(connect, ENTITIES, "features") as one:
        yield one


RIGHT = {name: vector(number) for number, name in enumerate(ENTITIES)}
INJECTED = {
    "wrong_entity": lambda: features.wrong_entity("features", share=0.5),
    "partial_answers": lambda: features.partial_answers("features", share=0.5),
    "fewer": lambda: features.partial_answers("features", share=0.5, how="fewer"),
    "column_added": lambda: features.schema_mismatch("features"),
    "big_endian": lambda: features.schema_mismatch("features", change="big_endian"),
}


@pytest.mark.parametrize("name", INJECTED)
def test_answers_are_proven_wrong_by_a_read_of_ours_and_one_of_a_user(
    store_world: World, readers: Readers, name: str
) -> None:
    found = INJECTED[name]()
    data = found["data"]
    assert data["affected"] >= 1
    assert "of users'" in found["evidence"]
    assert f"our own {data['asked']} differs through the link from past it" in found["evidence"]
    json.dumps(found)
    (fault,) = current().undo.open_faults()
    assert fault.lease_s == port.LEASE_S
    assert readers.another_round() != RIGHT
    # Our reads are no users'.
    links = store_world.find(port.Links)
    (toxic_id,) = links.active()
    assert links.stats(toxic_id)["own_affected"] >= 1
    assert revert() == ["features: fault removed"]
    assert_undone(store_world)
    assert network.remove_toxic(store_world, "features", toxic_id) == "features: the fault had ended already"
    assert readers.another_round() == RIGHT


def test_stale_values_are_proven_where_values_move(store_world: World, store: Store, readers: Readers) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 100
        while not stop.wait(0.01):
            number += 1
            store.direct.mset(dict.fromkeys(ENTITIES, vector(number)))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = features.stale_values("features")
    finally:
        stop.set()
        writer.join()
    assert "differs through the link from past it" in found["evidence"]
    first, later = readers.another_round(), dict.fromkeys(ENTITIES, vector(-5))
    store.direct.mset(later)
    assert readers.another_round() == first != later
    revert()
    assert_undone(store_world)
    assert readers.another_round() == later


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proofs are given up after a moment."""
    monkeypatch.setattr(answers, "EVIDENCE_WITHIN_S", 0.8)


@pytest.mark.usefixtures("soon", "readers")
@pytest.mark.parametrize(
    ("inject", "why"),
    [
        (lambda: features.stale_values("features"), "none of the 24 values that were read changed"),
        (
            lambda: features.wrong_entity("features", key_prefix="sessions:"),
            "another share, or another key_prefix",
        ),
        (lambda: features.partial_answers("locked"), "no client read a value over it"),
    ],
)
def test_an_unproven_fault_is_reverted_with_a_reason(
    store_world: World, inject: Callable[[], object], why: str
) -> None:
    with pytest.raises(Unproven, match=why):
        inject()
    assert_undone(store_world)


@pytest.mark.usefixtures("soon")
def test_values_of_another_form_cannot_be_laid_out_anew(
    store_world: World, store: Store, readers: Readers
) -> None:
    store.direct.mset(dict.fromkeys(ENTITIES, b"[1.0, 2.0]"))
    with pytest.raises(Unproven, match="has a form that can be changed"):
        features.schema_mismatch("features")
    assert_undone(store_world)
    assert set(readers.another_round().values()) == {b"[1.0, 2.0]"}


def test_a_store_that_asks_for_a_password_is_proven_by_its_users(
    store_world: World, stores: tuple[Store, Store], connect: Callable[..., redis.Redis]
) -> None:
    stores[1].direct.mset(RIGHT)
    with Readers(connect, ENTITIES, "locked", password=PASSWORD) as readers:
        found = features.partial_answers("locked", share=1.0)
        assert "answers no read of our own (NOAUTH" in found["evidence"]
        assert set(readers.another_round().values()) == {None}
        revert()
        assert readers.another_round() == RIGHT
    assert_undone(store_world)


def test_a_difference_that_a_user_wrote_is_no_proof(store_world: World, store: Store) -> None:
    """Without a toxic the same question brings the same answer, whatever is claimed of it."""
    claimed = [{"asked": ["GET", name]} for name in ENTITIES]
    assert differing(store_world, "features", claimed) is None
    assert ask(("127.0.0.1", store.port), [b"GET", b"e1"]) == b"$24\r\n" + vector(1) + b"\r\n"
    assert ask(("127.0.0.1", 1), [b"GET", b"e1"]) is None


def test_slow_holds_each_request_once(store_world: World, readers: Readers) -> None:
    found = features.slow("features", low_ms=20, high_ms=30)
    assert found["data"]["delay_min_ms"] >= 20
    assert "of the store's" in found["evidence"]
    assert readers.another_round() == RIGHT
    assert revert() == ["features: fault removed"]
    assert_undone(store_world)


@pytest.mark.usefixtures("asked")
def test_slow_takes_a_store_behind_http_by_the_name_of_its_link(
    world: World, start_proxy: Callable[..., RunningProxy], server: RawServer
) -> None:
    name = "shop->features"
    running = start_proxy({name: (server.port, "http")})
    link = Link("{}:{}".format(*running.addresses[name]), f"127.0.0.1:{server.port}", "http")
    world.file = replace(world.file, links={name: link})
    world.parts[port.Links].close()
    world.parts[port.Links] = ProxyLinks(running.control)
    with Traffic(running, name):
        found = features.slow(name, low_ms=20, high_ms=30)
    assert found["data"]["delay_min_ms"] >= 20
    revert()
    assert_undone(world)
    world.file = replace(world.file, links={name: replace(link, protocol="tcp")})
    with pytest.raises(Refusal, match="is a tcp link, on which requests cannot be distinguished"):
        features.slow(name)


def test_slow_without_readers_is_not_proven(store_world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "inject", impatient(reach.inject))
    with pytest.raises(Unproven, match="no evidence of an effect within"):
        features.slow("features", low_ms=1, high_ms=2)
    assert_undone(store_world)


@pytest.mark.usefixtures("readers")
def test_a_redis_link_is_a_tcp_link_as_well(store_world: World) -> None:
    assert "reset" in network.block("features")["evidence"]
    revert()
    assert features.outage("features")["data"]["connections"] >= 1
    revert()
    assert_undone(store_world)


WRONG = [
    (lambda: features.slow("features", 5, 2), UsageError, "low_ms, high_ms: 5 and 2"),
    (lambda: features.slow("features", share=0), UsageError, "share: 0 is not in (0, 1]"),
    (lambda: features.slow("features", float("inf")), UsageError, "low_ms: inf is not a finite number"),
    (
        lambda: features.slow("odd"),
        UsageError,
        "'odd' does not lead to a feature store; these do: features, locked",
    ),
    (lambda: features.outage("odd"), UsageError, "'odd' does not lead to a feature store"),
    (lambda: features.slow("features", 10, 3000), Refusal, "allows latency_ms 2000"),
    (lambda: features.stale_values("nowhere"), UsageError, "no link 'nowhere'"),
    (lambda: features.stale_values("features", share="all"), UsageError, "share: 'all' is not a finite number"),
    (lambda: features.stale_values("features", key_prefix=7), UsageError, "key_prefix: 7 is not text"),
    (lambda: features.stale_values("features", share=0.9), Refusal, "allows rows_share 0.5"),
    (lambda: features.wrong_entity("odd"), Refusal, "this fault needs one that speaks redis"),
    (lambda: features.wrong_entity("odd"), Refusal, "choose one of: features, locked"),
    (lambda: features.wrong_entity("features", share=2), UsageError, "share: 2 is not in (0, 1]"),
    (lambda: features.partial_answers("features", how="half"), UsageError, "how: 'half' is not one of nil, fewer"),
    (lambda: features.schema_mismatch("features", change="xml"), UsageError, "change: 'xml' is not one of"),
]


@pytest.mark.parametrize(("call", "error", "words"), WRONG)
def test_wrong_calls_are_refused_in_words_and_leave_no_trace(
    store_world: World, call: Callable[[], object], error: type[Exception], words: str
) -> None:
    store_world.file = replace(store_world.file, limits=Limits(rows_share=0.5, latency_ms=2000))
    with pytest.raises(error) as refusal:
        call()
    assert words in str(refusal.value)
    assert not events(store_world, Kind.FAULT_INTENDED)
    assert list(store_world.find(port.Links).active()) == []


def test_two_faults_of_entities_count_together(store_world: World, readers: Readers) -> None:
    store_world.file = replace(store_world.file, limits=Limits(rows_share=0.6))
    features.wrong_entity("features", share=0.4)
    with pytest.raises(Refusal, match=r"together with the 0\.4 of the active faults"):
        features.partial_answers("features", share=0.4)
    assert len(store_world.find(port.Links).active()) == 1
    revert()
    assert readers.another_round() == RIGHT


def test_drawn_by_chance_they_sit_where_features_are_read(store_world: World) -> None:
    rng, file = np.random.default_rng(1), store_world.file
    assert where_features_are_read(rng, file)["link"] in ("features", "locked")
    reading = Link("127.0.0.1:1", "127.0.0.1:1", "redis")
    assert where_features_are_read(rng, replace(file, links={"x": reading, LINK: reading}))["link"] == LINK
    assert (
        where_features_are_read(rng, replace(file, links={"x": reading, LINK: replace(reading, protocol="tcp")}))
        is None
    )
    assert where_features_are_read(rng, replace(file, links={})) is None
