"""Faults of records, each injected on a running stream: proof read back from its far end, undo, undo again."""

# ruff: noqa: ARG001, ARG002  (fixtures are asked for what they set up; stand-ins ignore arguments)

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from fault_world import assert_undone, events, impatient
from record_world import ENTITIES, RECORDS_PER_S, Pipeline, record, serve_source

from monkeyproof.clock import wait_for
from monkeyproof.config.limits import Limits
from monkeyproof.errors import Refusal, Unproven, UsageError
from monkeyproof.faults import data, drift
from monkeyproof.faults.drift import records
from monkeyproof.faults.support import record_stream
from monkeyproof.injection.fault_registry import all_faults, find
from monkeyproof.injection.inject import current, revert
from monkeyproof.record.history import Kind
from monkeyproof.targets import port


@pytest.fixture
def stream(world, proxy, server):
    server.handler = serve_source
    world.file = replace(world.file, allow_faults=("data", "drift"))
    with Pipeline(proxy) as pipeline:
        for one in (port.Features, port.Pipeline, port.Feedback):
            world.parts[one] = pipeline
        yield pipeline


FAULTS = [
    (data.scale_records, {}, "read back from the feature store: e"),
    (data.add_noise, {"sd": 0.5, "columns": "1"}, "in column 1"),
    (data.add_outliers, {"unit": 3.0}, "read back from the feature store: e"),
    (data.flip_signs, {"columns": "0,2"}, "read back from the feature store: e"),
    (data.change_unit, {"columns": "8"}, "in column 8"),
    (data.swap_columns, {"first": 0, "second": 5}, "read back from the feature store: e"),
    (data.swap_entities, {"window_records": 10}, "read back from the feature store: e"),
    (data.freeze_records, {"window_records": 10}, "read back from the feature store: e"),
    (data.missing_values, {}, "'None' among the features is not a finite"),
    (data.missing_values, {"written_as": "NaN", "columns": "3"}, "'nan' among the features is not a finite"),
    (data.missing_values, {"share": 1.0, "columns": "3", "where_column": "0", "at_least": 30.0}, "'None' among"),
    (data.duplicate_records, {}, "position must be a whole number above"),
    (data.reorder_records, {"window_records": 4}, "position must be a whole number above"),
    (data.drop_column, {"column": "3"}, "features must be a list of 9 numbers"),
    (data.drop_column, {"column": "label"}, "expected position, entity, features and label"),
    (data.rename_column, {"column": "label", "to": "target"}, "expected position, entity, features and label"),
    (data.retype_column, {"column": "3"}, "among the features is not a finite number"),
    (data.retype_column, {"column": "position"}, "position must be a whole number"),
    (data.add_column, {"column": "extra", "like": "label"}, "expected position, entity, features and label"),
    (data.drop_records, {}, "never came"),
    (data.truncate_batches, {"window_records": 4}, "never came"),
    (data.delay_records, {"lag_records": 40}, "has left the source"),
    (data.add_typos, {}, "read back from the feature store: features of 'e"),
    (data.unseen_categories, {}, "under 'unseen'"),
    (data.break_encoding, {}, "\ufffd"),
    (data.flip_labels, {}, "instead of"),
    (drift.covariate_shift, {"columns": "0,1", "shifts": "30,-1"}, "read back from the feature store: e"),
    (drift.covariate_shift, {"columns": "0", "shifts": "30", "shape": "gradual"}, "in column 0"),
    (drift.prior_shift, {}, "never came"),
    (drift.concept_shift, {"column": 0, "at_least": 30.0}, "instead of"),
]


@pytest.mark.parametrize(("function", "arguments", "words"), FAULTS)
def test_a_fault_is_read_back_and_taken_off(world, stream, function, arguments, words):
    found = function(link="web", **arguments)
    assert words in found["evidence"]
    json.dumps(found, allow_nan=False)
    assert find(found["fault"]).function is function
    assert revert() == ["web: fault removed"]
    assert_undone(world)
    # What passes afterwards is as it was made: each entity is refreshed.
    clean = {one["entity"]: one["features"] for one in map(record, range(ENTITIES))}
    assert wait_for(lambda: {name: stream.values.get(name) for name in clean} == clean, within_s=5)


def test_how_long_a_recurring_drift_pauses_is_measured_before_it_begins(world, stream):
    stood_at = stream.status().last_position
    drift.covariate_shift(link="web", columns="0", shifts="30", shape="recurring", over_records=5000)
    drift.covariate_shift(link="web", columns="1", shifts="30")
    recurring, sudden = events(world, Kind.FAULT_INTENDED)
    assert recurring.data["pauses_s"] == pytest.approx(5000 / RECORDS_PER_S, rel=0.25)
    # The pace is taken first, not out of the drift's first half.
    assert recurring.data["parameters"]["start_position"] - stood_at > RECORDS_PER_S * 0.4
    assert "pauses_s" not in sudden.data


def test_a_stopped_stream_does_not_distinguish_pause_and_recovery(world, stream, monkeypatch):
    monkeypatch.setattr(records, "_PACE_WITHIN_S", 0.1)
    with pytest.raises(Refusal, match="so the length of a pause is unknown"):
        drift.prior_shift(link="web", shape="recurring")
    assert not events(world, Kind.FAULT_INTENDED)


def test_what_a_stream_shows_before_a_fault_proves_nothing(world, stream, monkeypatch):
    """A toxic that hits no record: every evidence has to report that."""
    monkeypatch.setattr(record_stream, "inject", impatient(record_stream.inject))
    for function, arguments in (
        (data.missing_values, {"columns": "0", "at_least": 1e9}),
        (data.drop_records, {"share": 1e-12}),
        (data.flip_labels, {"share": 1e-12}),
        (data.add_typos, {"share": 1e-12}),
        (drift.concept_shift, {"column": 0, "at_least": 1e9}),
    ):
        with pytest.raises(Unproven, match="no evidence"):
            function(link="web", **arguments)
        assert_undone(world)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (data.scale_records, {"share": 0}, "scale: share: 0 is not in"),
        (data.scale_records, {"columns": "a"}, "columns: 'a' are no numbers of features"),
        (data.scale_records, {"columns": 3}, "columns: 3 are no numbers of features"),
        (data.missing_values, {"written_as": "none"}, "written_as: 'none' is neither 'null' nor 'NaN'"),
        (data.missing_values, {"where_column": "1"}, "say in which range"),
        (data.missing_values, {"at_least": 2.0, "at_most": 1.0}, "at_least, 2.0, is above at_most"),
        (data.add_noise, {"sd": -1}, "sd: -1 is not above 0"),
        (data.add_outliers, {"unit": 0}, "unit: 0 is not above 0"),
        (data.flip_signs, {"share": 2}, "share: 2 is not in"),
        (data.change_unit, {"columns": "0", "factor": 1.0}, "changes nothing"),
        (data.swap_columns, {"first": 1, "second": 1}, "cannot change places with itself"),
        (data.swap_columns, {"first": "x", "second": 1}, "first: 'x' is not the number of a column"),
        (data.swap_entities, {"window_records": 1}, "window_rows: 1 is not a whole number"),
        (data.freeze_records, {"share": "half"}, "share: 'half' is not a finite number"),
        (data.duplicate_records, {"share": 0}, "share: 0 is not in"),
        (data.drop_records, {"share": -1}, "share: -1 is not in"),
        (data.truncate_batches, {"kept": 1.0}, "kept: 1.0 is not in"),
        (data.reorder_records, {"window_records": 0}, "window_rows: 0 is not"),
        (data.delay_records, {"lag_records": 0}, "lag_records: 0 is not a whole number above 0"),
        (data.drop_column, {"column": ""}, "column: '' is not the name of one"),
        (data.rename_column, {"column": "3", "to": "f3"}, "a feature of a record has a place and no name"),
        (data.rename_column, {"column": "label", "to": 3}, "rename a field, to another name"),
        (data.retype_column, {"column": 3}, "column: 3 is not the name of one"),
        (data.add_column, {"column": "", "like": "label"}, "column: '' is not the name of one"),
        (data.add_typos, {"share": 2}, "share: 2 is not in"),
        (data.unseen_categories, {"value": 3}, "values: (3,) is not a tuple of texts"),
        (data.break_encoding, {"share": 0}, "share: 0 is not in"),
        (data.flip_labels, {"share": 0}, "share: 0 is not in"),
        (drift.covariate_shift, {"columns": "0", "shifts": "x"}, "shifts: 'x' are no numbers"),
        (drift.covariate_shift, {"columns": "0,1", "shifts": "3"}, "one shift for each column"),
        (drift.covariate_shift, {"columns": "0", "shifts": "0"}, "nothing would move"),
        (drift.covariate_shift, {"columns": "0", "shifts": "3", "shape": "slow"}, "shape: 'slow' is none of"),
        (drift.covariate_shift, {"columns": "0", "shifts": "3", "over_records": 0}, "over_records: 0 is not"),
        (drift.prior_shift, {"label": "a"}, "label: 'a' is not a finite number"),
        (drift.concept_shift, {"column": 0}, "say in which range the labels change"),
        (drift.concept_shift, {"column": "0", "at_least": 1.0}, "column: '0' is not the number of a column"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_done(world, idle, function, arguments, words):
    with pytest.raises(UsageError) as refusal:
        function(link="web", **arguments)
    assert words in str(refusal.value)
    assert not events(world, Kind.FAULT_INTENDED)


@pytest.fixture
def idle(world):
    """The parts of a target, of which nothing is asked."""
    world.file = replace(world.file, allow_faults=("data", "drift"))
    pipeline = Pipeline(None)
    for one in (port.Features, port.Pipeline, port.Feedback):
        world.parts[one] = pipeline
    return pipeline


def test_a_target_that_cannot_show_the_effect_is_refused(world, idle):
    del world.parts[port.Pipeline]
    with pytest.raises(Refusal, match="offers no pipeline control"):
        data.missing_values("web")
    with pytest.raises(Refusal, match="offers no pipeline control"):
        drift.covariate_shift("0", "3", shape="gradual", link="web")
    del world.parts[port.Feedback]
    with pytest.raises(Refusal, match="offers no feedback control"):
        data.flip_labels("web")
    assert not events(world, Kind.FAULT_INTENDED)


def test_records_that_do_not_fit_the_fault_say_so(world, stream):
    """The target does not declare how many features an entity has, so it shows only when a record passes."""
    with pytest.raises(UsageError, match=r"web: its records do not fit this fault: .* there is no column '12'"):
        data.scale_records("web", columns="12")
    for call, words in (
        (lambda: data.drop_column("price", link="web"), "no such field: 'price'"),
        (lambda: data.add_column("more", "price", link="web"), "no such field: 'price'"),
        (lambda: data.add_column("label", "entity", link="web"), "there is a field 'label' already"),
        (lambda: data.rename_column("label", "entity", link="web"), "there is a field 'entity' already"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    assert_undone(world)


def test_a_rejection_proves_one_fault_and_no_second_on_the_same_link(world, stream):
    data.drop_column("label", link="web")
    with pytest.raises(Refusal, match=r"data\.drop_column already has the pipeline reject what comes over web"):
        data.duplicate_records("web")
    revert()
    assert "position must be" in data.duplicate_records("web")["evidence"]
    revert()
    assert_undone(world)


def test_columns_beyond_what_an_entity_has_are_refused(world, stream, tmp_path):
    golden = tmp_path / "golden.jsonl"
    golden.write_text(json.dumps({"body": {"rows": [{"entity": "e0001"}]}, "expect": 0}) + "\n")
    world.file = replace(world.file, predict=replace(world.file.predict, golden=golden))
    with pytest.raises(UsageError, match="there is no feature 9; an entity has 9, from 0 on"):
        data.change_unit("9", link="web")
    with pytest.raises(UsageError, match="there is no feature 12"):
        data.swap_columns(0, 12, link="web")


@pytest.mark.parametrize(
    ("function", "arguments", "share"),
    [
        (data.flip_signs, {"columns": "0,1", "share": 0.5}, 0.75),
        (data.drop_records, {"share": 0.3}, 0.3),
        (data.drop_column, {"column": "label"}, 1.0),
        (data.delay_records, {}, 1.0),
        (drift.covariate_shift, {"columns": "0", "shifts": "1"}, 1.0),
    ],
)
def test_the_share_of_rows_is_limited(world, idle, function, arguments, share):
    world.file = replace(world.file, limits=Limits(rows_share=share - 0.01))
    with pytest.raises(Refusal, match=f"the share of rows corrupted would be {share:g}, and target"):
        function(link="web", **arguments)


class Showing:
    """A target that shows one state of its pipeline, its store and its feedback."""

    def __init__(self, now: port.PipelineStatus, values=None) -> None:
        self.now, self.values = now, values or {}

    def find(self, capability):
        return self

    def status(self):
        return self.now

    def read(self, entities):
        return {one: self.values.get(one) for one in entities}


BEFORE = port.PipelineStatus(False, 5, 0, 100, 100, records_read=90, batches_rejected=2, last_rejection="old")


def look(function, now, *cells, values=None, **stats):
    found = record_stream.StreamObservation(Showing(now, values), {"journal": cells, **stats}, BEFORE, 101)
    return function(found)


def lost(position: int) -> dict:
    return {"position": position, "entity": "e1", "column": "lost_rows", "old": 1, "new": 0}


def test_rejections_from_before_the_fault_prove_nothing():
    assert look(record_stream.batches_rejected, BEFORE) is None
    words, told = look(
        record_stream.batches_rejected, replace(BEFORE, batches_rejected=3, last_rejection="record 4: odd")
    )
    assert "rejected 1 batch (record 4: odd)" in words
    assert told["last_written"] == 100


def test_only_a_gap_that_a_lost_record_lies_in_proves_that_it_never_came():
    whole = replace(BEFORE, last_position=150, records_read=140)
    short = replace(BEFORE, last_position=150, records_read=130)
    assert look(record_stream.positions_skipped, whole, lost(120)) is None
    assert look(record_stream.positions_skipped, short, lost(160)) is None
    assert look(record_stream.positions_skipped, replace(short, records_read=0), lost(120)) is None
    words, told = look(record_stream.positions_skipped, short, lost(120))
    assert "went on by 50 positions and read 40 records: 10 never came" in words
    assert told == {"positions": 50, "never_came": 10}


def test_a_stream_is_behind_until_what_left_the_source_is_read():
    held = {"newest_position": 150, "held_back_records": 20}
    assert look(record_stream.pipeline_behind, replace(BEFORE, last_position=150), **held) is None
    assert look(record_stream.pipeline_behind, BEFORE, newest_position=150) is None
    assert look(record_stream.pipeline_behind, replace(BEFORE, last_position=130), **held)[1]["position"] == 130


def test_features_under_a_name_prove_it_only_if_they_are_those_of_the_record():
    renamed = {
        "position": 120,
        "entity": "e1",
        "column": "entity",
        "old": "e1",
        "new": "x",
        "features": [1.0, 2.0],
    }
    assert look(record_stream.stored_under_other_name, BEFORE, renamed) is None
    assert look(record_stream.stored_under_other_name, BEFORE, renamed, values={"x": [1.0, 3.0]}) is None
    words, _ = look(record_stream.stored_under_other_name, BEFORE, renamed, values={"x": [1.0, 2.0]})
    assert "features of 'e1' under 'x'" in words


def test_a_batch_that_was_written_proves_it_where_a_healer_was_quicker():
    cell = {"position": 101, "entity": "e1", "column": 0, "old": 1.0, "new": 2.0}
    assert look(record_stream.written_past, BEFORE, cell) is None
    now = replace(BEFORE, last_written_position=101)
    assert "repaired or overwritten since" in look(record_stream.written_past, now, cell, values={"e1": [1.0]})[0]
    assert "has 2.0 for 1.0" in look(record_stream.value_in_store, now, cell, values={"e1": [2.0]})[0]
    assert look(record_stream.value_in_store, now, cell, values={"e1": [1.0]}) is None


DRAWN = [one for one in all_faults() if one.family in ("data", "drift") and one.function is not drift.benign_shift]


@pytest.mark.parametrize("one", DRAWN, ids=lambda one: one.name)
def test_what_is_drawn_by_chance_could_be_injected(world, idle, one):
    assert one.draw is not None
    assert one.draw(np.random.default_rng(1), world.file, 0.5) is None
    streaming = replace(world.file, links={record_stream.LINK: world.file.links["web"]})
    current().planned = []
    for intensity in (0.1, 1.0):
        one.function(link="web", **one.draw(np.random.default_rng(1), streaming, intensity))
    assert [injection.fault for injection in current().planned] == [one.name] * 2
    assert {injection.subject for injection in current().planned} == {"web"}
