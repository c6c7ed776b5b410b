"""Experiments of the catalogue, each once and in a quick form, on real embedded targets: their promises come true.

`make test` runs a sample that shows every family of faults, `make catalogue` every experiment. Both run in two
lanes at the same time, each a campaign with a home and a target of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from short_trials import with_hold, with_windows

from monkeyproof.config.target_file import read_target_file
from monkeyproof.experiment import catalogue
from monkeyproof.types import Json, Outcome

pytestmark = pytest.mark.timeout(900)


def families(name: str) -> set[str]:
    """The families of faults that an experiment injects."""
    providers = [step["provider"] for step in catalogue.document_of(name)["method"]]
    modules = [str(provider.get("module", "")) for provider in providers]
    return {module.split(".")[2] for module in modules if module.startswith("monkeyproof.faults.")}


def one_of_each_family() -> list[str]:
    """The tour, and for each family of faults that the tour lacks the first experiment that has it."""
    sample = catalogue.tour()
    shown = set().union(*(families(name) for name in sample))
    for name in catalogue.for_embedded():
        if not families(name) <= shown:
            sample.append(name)
            shown |= families(name)
    return sample


SAMPLE, ALL = one_of_each_family(), catalogue.for_embedded()
HELD_AT_LEAST_S = 2.0
HEALED_WITHIN_S = 12.0
NOTICED_WITHIN_S = 6.0
"""Where users may notice or not: who would be hurt is, by then, and whole again."""
BROKEN_FOR_S = 3.0
"""For how long a fault is held that no healer heals, or no user notices: long enough to see that."""
STABLE_FOR_S = 1.5
"""Shorter, and a service of which one answer in twenty is still wrong would pass for steady."""

REMEDIES = {
    "latency-spike": "drain",
    "broken-rollback": "roll",
    "feature-store-outage": "snapshot",
    "store-hangs": "snapshot",
    "corrupt-records": "restore",
    "replica-pause": "restart",
}
"""A word of the remedy that is the right one, where there is just one."""
WRONG_AT_MOST = {"corrupt-records": 25}
"""Wrong answers; of the probes while it is held, far more would be wrong without a remedy."""

FALSELY_HEALED = ("benign-drift", "prior-drift")
"""The Elephant looks at the records that come in, and takes these for harmful: see docs/faults/drift.md."""

UP = """
import sys
from monkeyproof.targets.local.control_plane import lifecycle
print(lifecycle.up(owner_pid=int(sys.argv[1])).path)
"""


def _quick(name: str, folder: Path) -> Path:
    expected = catalogue.find(name).extension.expect["elephant"]
    recovers = {Outcome.HEALED, Outcome.SELF_RECOVERED} & set(expected)
    at_most_s = HEALED_WITHIN_S if recovers else BROKEN_FOR_S
    if recovers and Outcome.ABSORBED in expected:
        at_most_s = NOTICED_WITHIN_S
    return with_hold(name, folder, at_least_s=HELD_AT_LEAST_S, at_most_s=at_most_s)


def _run_lane(names: list[str], folder: Path) -> Mapping[str, Json]:
    """Trials of these experiments, by name; or what the campaign said, where it left no results."""
    environment = os.environ | {"MONKEYPROOF_HOME": str(folder / "home")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *words], env=environment, cwd=folder, capture_output=True, text=True, check=False
        )

    try:
        up = run("-c", UP, str(os.getpid()))
        assert up.returncode == 0, up.stderr
        target = read_target_file(Path(up.stdout.strip().splitlines()[-1]))
        quick = with_windows(
            target,
            folder,
            stable_for_s=STABLE_FOR_S,
            baseline_s=0.5,
            horizon_s=HEALED_WITHIN_S,
            after_revert_s=5.0,
        )
        files = [str(_quick(name, folder)) for name in names]
        options = ("--target", str(quick.path), "--arms", "elephant", "--seed", "1", "--out", str(folder / "out"))
        done = run("-m", "monkeyproof.cli", "run", *files, *options, "--no-tracking")
        results = folder / "out" / "results.json"
        assert results.exists(), done.stdout + done.stderr
        return {one["experiment"]: one for one in json.loads(results.read_text())["trials"]}
    finally:
        run("-m", "monkeyproof.cli", "target", "down")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.cls is not None:
        metafunc.parametrize("name", metafunc.cls.names)


@pytest.fixture(scope="class")
def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Json]:
    """The trials of a lane, by the names of their experiments."""
    return _run_lane(request.cls.names, tmp_path_factory.mktemp("lane"))


class Lane:
    """One campaign, and what is asserted of each of its trials."""

    names: ClassVar[list[str]]

    def test_shipped_experiment_has_an_expected_outcome(self, trials: Mapping[str, Json], name: str) -> None:
        assert name in trials, f"there was no trial of it; there were {', '.join(trials)}"
        trial = trials[name]
        recovery = trial["recovery"]
        expected = catalogue.find(name).extension.expect["elephant"]
        assert recovery["outcome"] in expected, f"{recovery['outcome']}: {recovery['reason']}"
        assert trial["evidence"], "nothing proved the fault"
        assert not trial["not_reverted"]
        if recovery["outcome"] == Outcome.HEALED:
            assert trial["healed_by"]
            assert recovery["ttd_s"] is not None
            assert recovery["bad_count"] > 0
            assert any(REMEDIES.get(name, "") in remedy for remedy in trial["healed_by"]), trial["healed_by"]
        if recovery["outcome"] == Outcome.ABSORBED:
            assert recovery["bad_count"] == 0
        assert name in FALSELY_HEALED or not trial["false_heals"]
        assert recovery["wrong_count"] <= WRONG_AT_MOST.get(name, recovery["wrong_count"])
        assert trial["load"]["requests"] > 0


class TestFirstLaneOfTheSample(Lane):
    names = SAMPLE[0::2]


class TestSecondLaneOfTheSample(Lane):
    names = SAMPLE[1::2]


@pytest.mark.catalogue
class TestFirstLane(Lane):
    names = ALL[0::2]


@pytest.mark.catalogue
class TestSecondLane(Lane):
    names = ALL[1::2]
