"""Injects one fault of a stored artifact, and is killed in the middle of it: ``... KIND URL ARTIFACTS FOLDER``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from fault_world import World

from monkeyproof.clock import Anchor, SystemClock
from monkeyproof.config.target_file import Predict, TargetFile
from monkeyproof.faults import models, registry
from monkeyproof.faults.models import artifacts as files
from monkeyproof.faults.support import file_restore
from monkeyproof.faults.support.bitflips import Flips
from monkeyproof.injection.inject import Context, set_current
from monkeyproof.record.history import HistoryWriter
from monkeyproof.targets import port
from monkeyproof.targets.local.adapter.artifacts import LocalArtifactFiles
from monkeyproof.targets.registry import RegistryClient
from monkeyproof.undo.log import UndoLog


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def half(path: Path, flips: Flips) -> None:
    file_restore.flip_in_file(path, Flips(flips.bits[: len(flips.bits) // 2]))
    die()


def main() -> None:
    kind, url, artifacts, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    client = RegistryClient(url, "shuttle", timeout_s=5)
    file = TargetFile(
        "small", Predict("http://127.0.0.1:1/", Path("g")), allow_faults=("models", "registry"), path=folder / "t"
    )
    world = World(file)
    world.parts = {
        port.Registry: client,
        port.Publishing: client,
        port.ArtifactFiles: LocalArtifactFiles(artifacts, client),
    }
    history = HistoryWriter(folder, Anchor.now(SystemClock()), "test")
    set_current(Context(folder, world, history, UndoLog(folder / "undo.jsonl"), seed=1, arm="none"))
    if kind == "flip_bits":
        files.flip_in_file = half
        models.flip_bits(bits=200)
    elif kind == "truncate":
        files.digest_given = die  # The file is cut, and no check has run yet.
        models.truncate()
    elif kind == "corrupt_last_good":
        Path.rename = die  # Other bytes lie beside the file, and have not taken its place.
        registry.corrupt_last_good()
    else:
        files.FileBackup.save = die  # Nothing is saved, so nothing is done.
        models.remove()


main()
