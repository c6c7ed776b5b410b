"""How many single flipped bits in a model's file are noticed by what loads it.

    python benchmarks/silent_flips.py [--flips 200] [--json]

The embedded target's champion (a scikit-learn pipeline) is stored in each format, one random bit of the file
flips, and a process beside this one loads it and asks it for answers. That may fail, kill the process, hang, or
ask for all memory: then the flip was noticed. Formats whose library is not installed are left out, in words.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import pickle
import resource
import signal
import warnings
from collections.abc import Callable, Mapping
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import numpy as np

from monkeyproof import paths
from monkeyproof.faults.support.bitflips import random_bits
from monkeyproof.targets.local.models.data import Entities
from monkeyproof.targets.local.models.publishing import prepare_models

LOADED_WITHIN_S = 5
MEMORY_BYTES = 4 * 1024**3
ROWS = 200
NEEDS = {"joblib": "joblib", "parquet": "pyarrow", "safetensors": "safetensors", "torch": "torch", "onnx": "onnx"}
NOTICED, SAME, DIFFER = "n", "s", "d"

Load = Callable[[bytes], tuple[object, Any]]
"""What was loaded, comparably; and its answers."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Count the flips that nothing notices.")
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    table = measure(arguments.flips)
    if arguments.json:
        print(json.dumps(table))
        return
    print(f"{'format':12} {'flips':>5} {'noticed':>8} {'loaded':>7} {'of these, answers differ':>25}")
    for name, found in table.items():
        if isinstance(found, str):
            print(f"{name:12} left out: {found}")
        else:
            numbers = f"{found['noticed']:8} {found['loaded']:7} {found['answers_differ']:25}"
            print(f"{name:12} {arguments.flips:5} {numbers}")


def measure(flips: int) -> dict[str, Any]:
    """By format: how many flips were noticed, how many files loaded, and how many of these answer otherwise."""
    prepared = prepare_models(paths.cache_dir())
    champion = min(prepared.artifacts.rglob("model.pkl"), key=lambda path: abs(path.stat().st_size - 22_000))
    data = Entities.load(prepared.data_dir / "features.npz").values[:ROWS]
    table: dict[str, Any] = {}
    for name, (content, load) in formats(champion.read_bytes(), data).items():
        clean = load(content)[1]
        found = ""
        while len(found) < flips:  # A flip that ends the process was noticed; the next one goes on.
            found += in_a_process(load, content, clean, range(len(found), flips))
            found += NOTICED if len(found) < flips else ""
        table[name] = {
            "noticed": found.count(NOTICED),
            "loaded": flips - found.count(NOTICED),
            "answers_differ": found.count(DIFFER),
        }
    for name, module in NEEDS.items():
        if importlib.util.find_spec(module) is None:
            table[name] = f"{module} is not installed"
    return table


def formats(model: bytes, data: Any) -> Mapping[str, tuple[bytes, Load]]:
    """Each format's file, and what loads it. Formats of arrays hold the support vectors: they are the answers."""
    loaded = pickle.loads(model)  # noqa: S301 - trained by this machine.
    weights = np.ascontiguousarray(loaded[-1].support_vectors_)
    found: dict[str, tuple[bytes, Load]] = {
        "pickle": (model, lambda content: answers(pickle.loads(content), data)),  # noqa: S301
        "npy": (saved(weights), lambda content: array(np.load(io.BytesIO(content), allow_pickle=False))),
    }
    if importlib.util.find_spec("joblib"):
        import joblib

        file = io.BytesIO()
        joblib.dump(loaded, file)
        found["joblib"] = (file.getvalue(), lambda content: answers(joblib.load(io.BytesIO(content)), data))
    if importlib.util.find_spec("pyarrow"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        sink = io.BytesIO()
        pq.write_table(pa.table({f"c{n}": column for n, column in enumerate(weights.T)}), sink)
        found["parquet"] = (
            sink.getvalue(),
            lambda content: array(
                np.column_stack([one.to_numpy() for one in pq.read_table(io.BytesIO(content), use_threads=False)])
            ),
        )
    return found


def answers(model: Any, data: Any) -> tuple[object, Any]:
    return model, np.asarray(model.predict(data))


def array(values: Any) -> tuple[object, Any]:
    return values, values


def saved(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def in_a_process(load: Load, content: bytes, clean: Any, numbers: range) -> str:
    """A letter for each flip that a process beside this one survived, in order."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(load, content, clean, numbers, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


def _answer(load: Load, content: bytes, clean: Any, numbers: range, write: int) -> None:
    """In the child, which never returns."""
    try:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        for number in numbers:
            signal.alarm(LOADED_WITHIN_S)
            damaged = bytearray(content)
            random_bits(damaged, 1, np.random.default_rng([number, len(content)])).apply(damaged)
            os.write(write, _told(load, bytes(damaged), clean).encode())
    finally:
        os._exit(0)


def _told(load: Load, damaged: bytes, clean: Any) -> str:
    try:
        found = np.asarray(load(damaged)[1])
        same = found.shape == clean.shape and found.tobytes() == clean.tobytes()
    except Exception:  # Whatever it is: it was noticed.
        return NOTICED
    return SAME if same else DIFFER


if __name__ == "__main__":
    main()
