"""The data set's parts are disjoint, fixed and balanced as promised."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from monkeyproof.errors import UsageError
from monkeyproof.targets.local.models import data


@pytest.fixture(scope="module")
def everything() -> data.LabelledRows:
    return data.read_shuttle()


@pytest.fixture(scope="module")
def parts(everything: data.LabelledRows) -> data.Split:
    return data.split(everything)


def test_the_whole_data_set_is_read(everything: data.LabelledRows) -> None:
    assert everything.values.shape == (49_097, data.N_FEATURES)
    assert everything.labels.sum() == 3_511


def test_parts_are_disjoint_and_nothing_is_lost(everything: data.LabelledRows, parts: data.Split) -> None:
    assert len(parts.train) + len(parts.validation) + len(parts.serving) == len(everything)
    served = {row.tobytes() for row in parts.serving.values}
    for other in (parts.train, parts.validation):
        assert not served & {row.tobytes() for row in other.values}  # All rows of this data set differ.


def test_the_same_seed_gives_the_same_parts_and_another_does_not(
    everything: data.LabelledRows, parts: data.Split
) -> None:
    again, other = data.split(everything), data.split(everything, seed=data.SPLIT_SEED + 1)
    assert again.serving.names == parts.serving.names
    assert np.array_equal(again.train.values, parts.train.values)
    assert other.serving.names != parts.serving.names


def test_serving_entities_are_named_after_their_line_and_hold_no_glitch(
    everything: data.LabelledRows, parts: data.Split
) -> None:
    serving = parts.serving
    assert len(serving) == len(set(serving.names)) == 1500
    assert serving.labels.mean() == pytest.approx(0.2)
    row = int(serving.names[7].removeprefix("shuttle-"))
    assert np.array_equal(everything.values[row], serving.values[7])
    assert np.abs(serving.values).max() < 1000 < np.abs(everything.values).max()


def test_golden_and_canary_are_disjoint_balanced_and_answered_right(parts: data.Split) -> None:
    predicted = parts.serving.labels.copy()
    wrong = np.flatnonzero(predicted == 1)[:100]
    predicted[wrong] = 0
    golden, canary = data.golden_and_canary(parts.serving, predicted)
    assert len(golden) >= 128
    assert len(canary) == 64
    assert not set(golden) & set(canary)
    assert not (set(golden) | set(canary)) & set(wrong)
    for chosen in (golden, canary):
        assert parts.serving.labels[chosen].mean() == 0.5
        assert parts.serving.labels[chosen[:10]].mean() == 0.5


def test_a_champion_that_is_mostly_wrong_gives_no_golden_set(parts: data.Split) -> None:
    with pytest.raises(UsageError, match="right on only 0 entities of class 0"):
        data.golden_and_canary(parts.serving, 1 - parts.serving.labels)


def test_entities_survive_their_file(parts: data.Split, tmp_path: Path) -> None:
    parts.serving.save(tmp_path / "features.npz")
    loaded = data.Entities.load(tmp_path / "features.npz")
    assert loaded.names == parts.serving.names
    assert np.array_equal(loaded.values, parts.serving.values)
    assert np.array_equal(loaded.labels, parts.serving.labels)


@pytest.mark.parametrize("content", [None, b"", b"not a zip"])
def test_a_broken_feature_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "features.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"features\.npz: not a file of features"):
        data.Entities.load(path)


def test_questions_can_be_read_by_the_prober(parts: data.Split, tmp_path: Path) -> None:
    data.write_questions(tmp_path / "golden.jsonl", parts.serving, [3, 5])
    first = json.loads((tmp_path / "golden.jsonl").read_text().splitlines()[0])
    assert first == {
        "body": {"dataframe_records": [{"entity": parts.serving.names[3]}]},
        "expect": int(parts.serving.labels[3]),
        "tolerance": 0,
    }


def test_a_missing_data_set_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="install river"):
        data.read_shuttle()
