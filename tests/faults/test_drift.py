"""Drift in records, by their positions alone, and how far inputs may move before an answer changes."""

# ruff: noqa: ARG002  (stand-ins ignore arguments)

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fault_world import World

from monkeyproof.config.target_file import Predict, TargetFile
from monkeyproof.errors import Refusal, TargetError, UsageError
from monkeyproof.faults.data import corrupt
from monkeyproof.faults.drift.harmless import harmless_move
from monkeyproof.faults.proxy.records.batch import RecordBatch
from monkeyproof.faults.proxy.records.drift import MovingFeatures
from monkeyproof.faults.proxy.records.faults import record_fault
from monkeyproof.targets import port

COUNT = 1200
POSITIONS = np.arange(500, 500 + COUNT, dtype=np.uint64)
VALUES = np.random.default_rng(5).normal(size=(COUNT, 3)) * 10
LABELS = (VALUES[:, 1] > 0).astype(np.int64)


def drifted(name, rows=None, seed=7, labels=LABELS, **parameters) -> RecordBatch:
    """Records after a drift; ``rows``: which of them stand in one response."""
    rows = range(COUNT) if rows is None else rows
    batch = RecordBatch.of(
        [
            {
                "position": int(POSITIONS[n]),
                "entity": f"e{n}",
                "features": VALUES[n].tolist(),
                "label": int(labels[n]),
            }
            for n in rows
        ]
    )
    record_fault(name, parameters)(batch, seed)
    return batch


def features_of(batch) -> np.ndarray:
    return np.array([one["features"] for one in batch.records])


def labels_of(batch) -> np.ndarray:
    return np.array([one["label"] for one in batch.records])


def kept_of(batch) -> np.ndarray:
    """Which of all positions still came."""
    return np.isin(POSITIONS, [one["position"] for one in batch.records])


@pytest.mark.parametrize("start_position", [600, 0])
@pytest.mark.parametrize(
    ("shape", "over_records", "expected"),
    [
        ("sudden", 1, {-1: 0.0, 0: 1.0, 1099: 1.0}),
        ("gradual", 400, {-1: 0.0, 0: 1 / 400, 199: 0.5, 399: 1.0, 1099: 1.0}),
        ("recurring", 300, {-1: 0.0, 0: 1.0, 299: 1.0, 300: 0.0, 599: 0.0, 600: 1.0, 900: 0.0}),
    ],
)
def test_a_drift_takes_its_course_from_its_start(shape, over_records, expected, start_position):
    drift = MovingFeatures(
        columns=(0, 2), shifts=(8.0, -4.0), shape=shape, start_position=start_position, over_records=over_records
    )
    positions = np.arange(start_position + 1100, dtype=np.uint64)
    values = np.resize(VALUES, (len(positions), 3))
    moved = corrupt(values, drift.moves(), positions=positions, seed=7).table - values
    assert not moved[:, 1].any()
    for since, strength in expected.items():
        if start_position + since >= 0:
            assert moved[start_position + since] == pytest.approx([8 * strength, 0, -4 * strength])
    assert np.isfinite(moved).all()


@pytest.mark.parametrize("drift", ["covariate", "prior", "concept"])
def test_any_cut_and_any_order_gives_the_same(drift):
    course = {"shape": "gradual", "start_position": 700, "over_records": 500}
    work = {
        "covariate": lambda rows: features_of(
            drifted("covariate_shift", rows, columns=[0], shifts=[3.0], **course)
        ),
        "prior": lambda rows: kept_of(drifted("prior_shift", rows, label=1, share=0.5, **course))[rows],
        "concept": lambda rows: labels_of(drifted("concept_shift", rows, column=0, at_least=0.0, **course)),
    }[drift]
    every = np.arange(COUNT)
    whole = work(every)
    rng = np.random.default_rng(2)
    for _ in range(20):
        cuts = np.sort(rng.choice(np.arange(1, COUNT), 6, replace=False))
        np.testing.assert_array_equal(np.concatenate([work(rows) for rows in np.split(every, cuts)]), whole)
        order = rng.permutation(COUNT)
        np.testing.assert_array_equal(work(order), whole[order])


def test_the_mix_of_classes_changes_and_nothing_else():
    kept = kept_of(drifted("prior_shift", label=0, share=0.8, start_position=700))
    before = POSITIONS < 700
    assert kept[before].all()
    assert kept[LABELS == 1].all()
    assert kept[~before & (LABELS == 0)].mean() == pytest.approx(0.2, abs=0.05)
    other = kept_of(drifted("prior_shift", seed=8, label=0, share=0.8, start_position=700))
    assert (kept != other).any()


def test_what_inputs_mean_changes_in_its_range_and_nowhere_else():
    labels = np.where(np.arange(COUNT) % 50 == 0, 7, LABELS)
    changed = labels_of(drifted("concept_shift", labels=labels, column=0, at_least=0.0, at_most=12.0))
    hit = (VALUES[:, 0] >= 0) & (VALUES[:, 0] <= 12) & (labels != 7)
    np.testing.assert_array_equal(changed != labels, hit)
    np.testing.assert_array_equal(changed[hit], 1 - labels[hit])
    half = labels_of(drifted("concept_shift", column=0, at_least=0.0, share=0.5))
    assert (half != LABELS).sum() / (VALUES[:, 0] >= 0).sum() == pytest.approx(0.5, abs=0.06)
    assert (VALUES[half != LABELS, 0] >= 0).all()


# Benign moves.


class Champion:
    """Says whether the first of three features is above 5; the third counts only where it is above 100."""

    def __init__(self, loads: bool = True) -> None:
        self.loads = loads
        self.asked = 0

    def champion(self) -> str:
        return "4"

    def download(self, version, to):
        assert version == "4"
        return to / "model"

    def trial_load(self, model, rows) -> port.TrialLoad:
        self.asked += 1
        if not self.loads:
            return port.TrialLoad(False, "the process died by signal 11")
        return port.TrialLoad(True, "", [float(row[0] > 5 or row[2] > 100) for row in rows])


class Store:
    def read(self, entities):
        return {one: [float(n % 11), float(n), float(n % 90)] for n, one in enumerate(sorted(entities))}


@pytest.fixture
def asked(tmp_path):
    golden = tmp_path / "golden.jsonl"
    lines = [{"body": {"rows": [{"entity": f"e{n:03d}"}]}, "expect": 0} for n in range(100)]
    golden.write_text("".join(json.dumps(one) + "\n" for one in lines))
    world = World(TargetFile("small", Predict("http://127.0.0.1:1/", golden), path=tmp_path / "target.yaml"))
    champion = Champion()
    world.parts = {port.Features: Store(), port.Registry: champion, port.Models: champion}
    return world


def answers(values) -> np.ndarray:
    return (values[:, 0] > 5) | (values[:, 2] > 100)


def test_inputs_move_as_far_as_no_answer_changes(asked):
    move = harmless_move(asked, (), 2.0)
    values = np.array(list(Store().read([f"e{n:03d}" for n in range(100)]).values()))
    moved = values.copy()
    moved[:, list(move)] += np.array(list(move.values()))
    assert (answers(moved) == answers(values)).all()
    assert set(move) == {1, 2}  # Of the first, whole numbers next to the edge, any tried move changes an answer.
    assert move[1] == pytest.approx(2.0 * np.subtract(*np.quantile(values[:, 1], [0.95, 0.05])) / 3.29)
    assert 0 < move[2] < 2.0 * np.subtract(*np.quantile(values[:, 2], [0.95, 0.05])) / 3.29
    assert asked.parts[port.Models].asked == 2


def test_where_every_move_matters_there_is_no_benign_drift(asked):
    with pytest.raises(Refusal, match="every move of these features changes an answer"):
        harmless_move(asked, (0,), 2.0)


@pytest.mark.parametrize(
    ("columns", "size", "error", "words"),
    [
        ((), 0.0, UsageError, "size: 0.0 is not above 0"),
        ((3,), 1.0, UsageError, "there is no feature 3; an entity has 3, from 0 on"),
    ],
)
def test_wrong_questions_are_refused(asked, columns, size, error, words):
    with pytest.raises(error, match=words):
        harmless_move(asked, columns, size)


def test_a_champion_that_cannot_be_asked_is_no_excuse(asked):
    asked.parts[port.Models] = Champion(loads=False)
    with pytest.raises(TargetError, match=r"could not be asked .* died by signal 11"):
        harmless_move(asked, (), 1.0)


def test_a_store_without_known_entities_is_reported(asked):
    class Empty:
        def read(self, entities):
            return dict.fromkeys(entities)

    asked.parts[port.Features] = Empty()
    with pytest.raises(Refusal, match="knows none of the entities"):
        harmless_move(asked, (), 1.0)


def test_benign_drift_is_injected_with_the_moves_that_were_found(world, proxy, server, asked):
    from record_world import Pipeline, serve_source

    from monkeyproof.faults import drift
    from monkeyproof.injection.inject import revert

    server.handler = serve_source
    golden = asked.file.predict.golden
    golden.write_text(golden.read_text().replace('"e0', '"e00'))
    world.file = replace(world.file, allow_faults=("drift",), predict=asked.file.predict)
    champion = Champion()
    world.parts |= {port.Registry: champion, port.Models: champion}
    with Pipeline(proxy) as pipeline:
        world.parts |= {port.Features: pipeline, port.Pipeline: pipeline}
        found = drift.benign_shift(link="web", columns="3,4", size=1.0)
        assert "read back from the feature store: e" in found["evidence"]
        assert found["data"]["read_back"]["column"] in (3, 4)
        assert revert() == ["web: fault removed"]
        assert revert() == []
