"""What faults do to records: the same as to a table of them, however the stream is cut; answers stay whole."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from fault_world import add
from record_world import answer, records

from monkeyproof.errors import UsageError
from monkeyproof.faults import data
from monkeyproof.faults.proxy.records.batch import RecordBatch
from monkeyproof.faults.proxy.records.faults import record_fault

SEED, COUNT = 7, 240


def corrupted(name: str, parameters: dict, *, cuts: tuple[int, ...] = (), count: int = COUNT) -> RecordBatch:
    """The fault's work on ``count`` records, in as many batches as the cuts make."""
    whole = records(0, count)
    edges = [0, *cuts, count]
    batches = [RecordBatch.of(json.loads(json.dumps(whole[a:b]))) for a, b in itertools.pairwise(edges) if a < b]
    for batch in batches:
        record_fault(name, parameters)(batch, SEED)
    counts: dict[str, float] = {}
    for batch in batches:
        for key, amount in batch.counts.items():
            counts[key] = counts.get(key, 0) + amount
    first = batches[0]
    return RecordBatch(
        [one for batch in batches for one in batch.records],
        first.positions,
        first.values,
        [entry for batch in batches for entry in batch.journal],
        counts,
    )


WINDOWS = 12
FAULTS = [
    ("scale", {"share": 0.2}),
    ("noise", {"share": 0.5, "sd": 0.1, "relative": True}),
    ("outlier", {"share": 0.1, "unit": 2.0}),
    ("sign_flip", {"share": 0.3, "columns": ["2"]}),
    ("unit_change", {"share": 1.0, "factor": 1.8, "offset": 32.0, "columns": ["0"]}),
    ("missing", {"share": 0.2}),
    ("missing", {"share": 0.9, "columns": ["1"], "where": {"column": "", "at_most": -20.0}, "written_as": "NaN"}),
    ("typo", {"share": 0.4}),
    ("typo", {"share": 0.9, "where": {"column": "0", "at_least": 30.0}}),
    ("unseen_category", {"share": 0.4, "values": ["x", "y"]}),
    ("broken_encoding", {"share": 0.4}),
    ("label_noise", {"share": 0.3, "classes": [0, 1]}),
    ("duplicates", {"share": 0.2}),
    ("lost_rows", {"share": 0.2}),
    ("truncated_batches", {"share": 0.5, "kept": 0.25, "window_rows": WINDOWS}),
    ("late_rows", {"share": 0.2, "window_rows": WINDOWS}),
    ("swapped_rows", {"share": 0.5, "window_rows": WINDOWS}),
    ("stale_rows", {"share": 0.5, "window_rows": WINDOWS}),
    ("swapped_columns", {"share": 0.5, "first": 1, "second": 4}),
    ("lost_column", {"column": "4"}),
    ("text_column", {"column": "4"}),
    ("renamed_column", {"column": "entity", "to": "name"}),
    ("extra_column", {"column": "more", "like": "label"}),
    ("covariate_shift", {"columns": [0, 1], "shifts": [3.0, -1.0], "shape": "gradual", "over_records": 100}),
    ("covariate_shift", {"columns": [0], "shifts": [3.0], "shape": "recurring", "over_records": 50}),
    ("prior_shift", {"label": 1, "share": 0.6, "start_position": 30}),
    ("concept_shift", {"column": 0, "at_least": 20.0, "share": 0.7}),
]


@pytest.mark.parametrize(("name", "parameters"), FAULTS)
def test_any_way_of_cutting_the_stream_gives_the_same(name, parameters):
    rng = np.random.default_rng(1)
    whole = corrupted(name, parameters)
    assert whole.journal
    assert whole.counts
    for _ in range(5):
        cuts = np.sort(rng.choice(np.arange(1, COUNT // WINDOWS), 4, replace=False)) * WINDOWS
        # Missing numbers are compared as the text that is sent.
        parts = corrupted(name, parameters, cuts=tuple(cuts.tolist()))
        assert json.dumps(parts.records) == json.dumps(whole.records)
        assert parts.journal == whole.journal
        assert parts.counts == whole.counts


TABLES = [
    (data.Scale(share=0.2), "scale", {"share": 0.2}),
    (data.Noise(share=0.5, sd=2.0), "noise", {"share": 0.5, "sd": 2.0}),
    (data.SignFlip(share=0.5, columns=("3",)), "sign_flip", {"share": 0.5, "columns": ["3"]}),
    (data.Missing(share=0.3), "missing", {"share": 0.3}),
    (data.LostRows(share=0.3), "lost_rows", {"share": 0.3}),
    (data.Duplicates(share=0.3), "duplicates", {"share": 0.3}),
    (data.LateRows(share=0.3, window_rows=8), "late_rows", {"share": 0.3, "window_rows": 8}),
    (data.SwappedRows(share=0.3, window_rows=8), "swapped_rows", {"share": 0.3, "window_rows": 8}),
    (data.StaleRows(share=0.3, window_rows=8), "stale_rows", {"share": 0.3, "window_rows": 8}),
    (data.LostColumn(column="2"), "lost_column", {"column": "2"}),
]


@pytest.mark.parametrize(("fault", "name", "parameters"), TABLES)
def test_features_become_what_the_data_engine_makes_of_the_same_table(fault, name, parameters):
    batch = corrupted(name, parameters)
    table = np.array([one["features"] for one in records(0, COUNT)])
    expected = data.corrupt(table, fault, seed=SEED).table
    got = [[math.nan if value is None else value for value in one["features"]] for one in batch.records]
    np.testing.assert_array_equal(np.array(got), expected)


def test_a_share_of_names_or_labels_is_hit_by_position_and_seed():
    clean = records(0, COUNT)
    for name, field, parameters in (
        ("typo", "entity", {"share": 0.4}),
        ("broken_encoding", "entity", {"share": 0.4}),
        ("label_noise", "label", {"share": 0.4, "classes": [0, 1]}),
    ):
        batch = corrupted(name, parameters)
        hit = [was[field] != got[field] for was, got in zip(clean, batch.records, strict=True)]
        assert np.mean(hit) == pytest.approx(0.4, abs=0.08)
        assert [{**got, field: 0} for got in batch.records] == [{**was, field: 0} for was in clean]
        other = RecordBatch.of(records(0, COUNT))
        record_fault(name, parameters)(other, SEED + 1)
        assert hit != [was[field] != got[field] for was, got in zip(clean, other.records, strict=True)]


def test_every_change_is_noted_with_what_was_there():
    batch = corrupted("scale", {"share": 0.2})
    clean = records(0, COUNT)
    assert len(batch.journal) == batch.counts["corrupted_cells"]
    for cell in batch.journal:
        at, column = cell["position"], cell["column"]
        assert cell["old"] == clean[at]["features"][column]
        assert cell["new"] == batch.records[at]["features"][column]
        assert cell["entity"] == clean[at]["entity"]


def test_records_of_others_keep_position_and_entity_and_their_label_goes_along():
    batch = corrupted("swapped_rows", {"share": 0.5, "window_rows": 8})
    clean = records(0, COUNT)
    by_features = {tuple(one["features"]): one["label"] for one in clean}
    moved = [got for got, was in zip(batch.records, clean, strict=True) if got["features"] != was["features"]]
    assert len(moved) > 40
    assert [(one["position"], one["entity"]) for one in batch.records] == [
        (one["position"], one["entity"]) for one in clean
    ]
    assert all(by_features[tuple(one["features"])] == one["label"] for one in batch.records)


def test_a_window_that_a_response_cuts_stays_as_it_is():
    parameters = {"share": 1.0, "window_rows": 10}
    batch = RecordBatch.of(records(5, 20))
    record_fault("stale_rows", parameters)(batch, SEED)
    first = [one["features"] for one in batch.records]
    clean = [one["features"] for one in records(5, 20)]
    assert first[:5] == clean[:5]
    assert first[5:15] == [clean[5]] * 10
    assert first[15:] == clean[15:]
    with_a_gap = [*records(0, 7), *records(8, 9)]
    batch = RecordBatch.of(with_a_gap)
    record_fault("stale_rows", parameters)(batch, SEED)
    assert batch.records == [*records(0, 7), *records(8, 9)]


def test_a_late_stream_holds_back_the_newest_and_nothing_else():
    batch = RecordBatch.of(records(100, 30))
    record_fault("late_stream", {"lag_records": 12})(batch, SEED)
    assert batch.records == records(100, 18)
    assert batch.newest_position == 129
    assert batch.counts == {"held_back_records": 12}


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("rain", {}, "no such fault of records; there are missing, scale"),
        ("scale", {}, "scale: parameter 'share' is missing; it takes share, columns, where, low, high"),
        ("scale", {"share": 0.1, "size": 3}, "scale: unknown parameter 'size'"),
        ("scale", {"share": True}, "scale: share: True is not a finite number"),
        ("missing", {"share": 0.1, "where": {"row": 3}}, "missing: where: unknown 'row'"),
        ("typo", {"share": 0.1, "columns": ["entity", "city"]}, "typo: columns: one field of the record, not 2"),
        ("swapped_columns", {"first": 0}, "parameter 'second' is missing"),
        ("concept_shift", {"column": 0, "at_least": 2.0, "at_most": 1.0}, "is above at_most"),
        ("prior_shift", {"label": 0, "share": 0.5, "start_position": -1}, "start_position: -1 is not"),
    ],
)
def test_wrong_parameters_are_reported(name, parameters, words):
    with pytest.raises(UsageError) as refusal:
        record_fault(name, parameters)
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("scale", {"share": 0.1, "columns": ["9"]}, "there is no column '9'"),
        ("swapped_columns", {"first": 0, "second": 9}, "there is no column 9; there are 9"),
        ("covariate_shift", {"columns": [9], "shifts": [1.0]}, "there is no column 9; there are 9"),
        ("concept_shift", {"column": 9, "at_least": 1.0}, "there is no column 9; there are 9"),
        ("typo", {"share": 0.1, "where": {"column": "9", "at_least": 0.0}}, "where: there is no feature '9'"),
        ("lost_column", {"column": "9"}, "no such field: '9'"),
    ],
)
def test_a_fault_that_does_not_fit_the_records_is_reported(name, parameters, words):
    with pytest.raises(UsageError) as refusal:
        corrupted(name, parameters)
    assert words in str(refusal.value)


@pytest.mark.parametrize(("name", "parameters"), FAULTS)
def test_an_answer_stays_well_formed_on_a_connection_that_is_kept(proxy, browser, web, name, parameters):
    web.answer = lambda path: answer({"records": records(int(path[1:]), 120), "more": 1})
    toxic_id = add(proxy, "corrupt_records", fault=name, parameters=parameters, seed=SEED)
    bodies = [json.loads(browser.ask(f"/{first}")[1]) for first in (0, 120)]
    assert all(body["more"] == 1 for body in bodies)
    expected = corrupted(name, parameters, cuts=(120,))
    assert json.dumps([one for body in bodies for one in body["records"]]) == json.dumps(expected.records)
    stats = proxy.links.stats(toxic_id)
    assert stats["journal"] == json.loads(json.dumps(expected.journal[-500:]))
    assert {key: stats[key] for key in expected.counts} == expected.counts
    proxy.links.remove(toxic_id)
    assert json.loads(browser.ask("/0")[1])["records"] == records(0, 120)


def test_what_the_fault_does_not_fit_passes_and_the_toxic_says_why(proxy, browser, web):
    web.answer = lambda _: answer({"records": records(0, 10)})
    toxic_id = add(proxy, "corrupt_records", fault="scale", parameters={"share": 1.0, "columns": ["9"]}, seed=SEED)
    assert json.loads(browser.ask("/0")[1])["records"] == records(0, 10)
    stats = proxy.links.stats(toxic_id)
    assert "there is no column '9'" in stats["trouble"]
    assert stats["skipped"] == 1
