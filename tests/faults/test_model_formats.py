"""Where in a model's file its weights lie, found without loading it."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults.models import formats
from monkeyproof.faults.models.formats import choose_bits
from monkeyproof.faults.support.bitflips import flip_in_file

WEIGHTS = np.random.default_rng(3).normal(size=(40, 25))


def npy(weights: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, weights)
    return file.getvalue()


def safetensors(weights: np.ndarray) -> bytes:
    kind = {"float32": "F32", "float16": "F16", "float64": "F64"}[weights.dtype.name]
    header = {
        "__metadata__": {"by": "a test"},
        "ids": {"dtype": "I64", "shape": [2], "data_offsets": [0, 16]},
        "weights": {"dtype": kind, "shape": list(weights.shape), "data_offsets": [16, 16 + weights.nbytes]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(16) + weights.tobytes()


class Model:
    """With integers, text and weights."""

    def __init__(self, weights: np.ndarray) -> None:
        self.name, self.ids, self.weights = "x" * 200, np.arange(500), weights


FORMATS = {
    "npy": npy,
    "safetensors": safetensors,
    "pickle 4": lambda weights: pickle.dumps(Model(weights), 4),
    "pickle 5": lambda weights: pickle.dumps(Model(weights), 5),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_only_the_highest_bit_of_an_exponent_flips_in_so_many_weights(
    tmp_path: Path, name: str, kind: str
) -> None:
    weights = WEIGHTS.astype(kind)
    clean = FORMATS[name](weights)
    path = tmp_path / "model"
    path.write_bytes(clean)
    flips = choose_bits(path, 50, "exponent", np.random.default_rng(1))
    assert path.read_bytes() == clean, "choosing changed the file"
    flip_in_file(path, flips)
    begin = clean.index(weights.tobytes())
    now = np.frombuffer(path.read_bytes(), kind, weights.size, begin)
    changed = now != weights.ravel()
    assert changed.sum() == len(flips.bits) == 50
    assert (abs(weights.ravel()[changed]) < 2).all()
    assert ((abs(now[changed]) > 1e18) | np.isnan(now[changed])).all()
    assert path.read_bytes()[:begin] == clean[:begin]


@pytest.mark.parametrize(
    "content",
    [
        b"text that is no model at all" * 10,
        pickle.dumps({"ids": np.arange(1000), "none": np.zeros(100)}),
        npy(np.arange(100)),
        npy(WEIGHTS)[:7],
        (2**60).to_bytes(8, "little") + b"{}",
        (90).to_bytes(8, "little") + b"{" * 200,
        safetensors(WEIGHTS).replace(b"data_offsets", b"data_offset_"),
    ],
)
def test_where_no_weights_are_found_it_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model"
    path.write_bytes(content)
    with pytest.raises(Refusal, match="no weights were found in model"):
        choose_bits(path, 1, "exponent", np.random.default_rng(1))
    assert len(choose_bits(path, 3, "any", np.random.default_rng(1)).bits) == 3


def test_mistakes_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    path.touch()
    with pytest.raises(UsageError, match="the file is empty"):
        choose_bits(path, 1, "any", np.random.default_rng(1))
    path.write_bytes(npy(WEIGHTS))
    small = int((abs(WEIGHTS) < 2).sum())
    with pytest.raises(UsageError, match=f"{small + 1} weights below 2 are needed, and about {small} were found"):
        choose_bits(path, small + 1, "exponent", np.random.default_rng(1))
    assert len(choose_bits(path, small, "exponent", np.random.default_rng(1)).bits) == small
    monkeypatch.setattr(formats, "MOST_BYTES", 100)
    with pytest.raises(Refusal, match="larger than 100 bytes"):
        choose_bits(path, 1, "any", np.random.default_rng(1))
