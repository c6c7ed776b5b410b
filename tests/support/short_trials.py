"""Trials on the embedded target in less time, for tests whose promise does not depend on how long they last."""

from __future__ import annotations

from pathlib import Path

import yaml

from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.experiment import catalogue


def with_windows(target: TargetFile, folder: Path, *, stable_for_s: float = 0.0, **windows_s: float) -> TargetFile:
    """The same target with other windows, in a file of the test's own; ``stable_for_s`` 0 leaves its SLO alone."""
    described = yaml.safe_load(target.path.read_text())
    described["predict"]["golden"] = str(target.predict.golden)
    described["windows"] = windows_s
    if stable_for_s:
        described["slo"] = (described.get("slo") or {}) | {"stable_for_s": stable_for_s}
    path = folder / "target.yaml"
    path.write_text(yaml.safe_dump(described, sort_keys=False))
    return read_target_file(path)


def with_hold(experiment: str, folder: Path, *, at_least_s: float, at_most_s: float) -> Path:
    """The shipped experiment as it is, but for how long its fault is held."""
    document = yaml.safe_load(catalogue.find(experiment).path.read_text())
    (extension,) = document["extensions"]
    extension["trial"]["hold"] = {"at_least_s": at_least_s, "at_most_s": at_most_s}
    path = folder / f"{experiment}.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
