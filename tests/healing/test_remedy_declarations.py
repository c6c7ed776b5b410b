"""What a remedy declares of itself: it is whole, it is true, and the policy takes it where it asks to be tried."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from elephant_world import CANARIES, C, World
from test_detect import REFERENCE, sample

from monkeyproof.errors import TargetError
from monkeyproof.healing.actuators import Actuators, read_known
from monkeyproof.healing.diagnose import Cause
from monkeyproof.healing.policy import POLICY, TABLE, complete
from monkeyproof.healing.remedies import REMEDIES
from monkeyproof.healing.remedies.drain import drain
from monkeyproof.healing.remedies.quarantine_and_restore import quarantine_and_restore
from monkeyproof.healing.remedies.restart import restart
from monkeyproof.healing.remedies.serve_snapshot import serve_snapshot
from monkeyproof.healing.remedy import LiftEvidence, Remedy, TriedFor, discover, remedy
from monkeyproof.healing.samples import Sample


class Recording(World):
    """A world that records which capabilities it was asked for."""

    def find(self, capability: type[C]) -> C | None:
        self.asked: set[type] = {*getattr(self, "asked", ()), capability}
        return super().find(capability)


@pytest.mark.parametrize("name", sorted(REMEDIES))
def test_a_remedy_needs_what_it_declares_and_no_more(name: str) -> None:
    world = Recording(model="1")
    actuators = Actuators(world, world.clock, CANARIES, read_known(world, CANARIES), "3", 1.0)
    assert REMEDIES[name](actuators, "replica-1")
    assert world.asked == set(REMEDIES[name].needs)


def test_every_remedy_has_a_file_and_a_summary() -> None:
    assert all(one.summary.endswith(".") for one in REMEDIES.values())
    assert all(one.name == name for name, one in REMEDIES.items())
    lifts = {one.lifted_by.name: one for one in REMEDIES.values() if one.lifted_by is not None}
    for name, one in lifts.items():
        assert REMEDIES[name].action.__module__ == one.action.__module__, "a remedy and its lift share one file"


# --- evidence that a remedy can be lifted ---------------------------------------------------------------------


def is_safe(one: Remedy, window: list[Sample], subject: str = "features", for_s: float = 2.0) -> bool:
    assert one.safe_when is not None
    return one.safe_when(LiftEvidence(window, REFERENCE, subject, for_s))


def test_evidence_needs_the_whole_time_and_no_gap() -> None:
    well = [sample(n) for n in range(10)]
    assert is_safe(drain, well, "replica-2")
    assert is_safe(serve_snapshot, well)
    assert is_safe(quarantine_and_restore, well)
    assert not is_safe(drain, well[5:], "replica-2"), "too short a time"
    gap = [*well[:6], replace(well[6], replicas=None, store_ok=None), *well[7:]]
    assert not is_safe(drain, gap, "replica-2")
    assert not is_safe(serve_snapshot, gap)
    no_new_batch = [replace(one, pipeline=well[0].pipeline) for one in well]
    assert not is_safe(quarantine_and_restore, no_new_batch)
    assert not is_safe(drain, [], "replica-2")


# --- the policy and the places that remedies ask for ----------------------------------------------------------


def test_a_remedy_is_tried_where_it_asks_to_be() -> None:
    cause = Cause.DATA_CORRUPTED
    for before, expected in (
        ("", ("quarantine_and_restore", "quarantine_and_restore", "serve_snapshot", "extra")),
        ("serve_snapshot", ("quarantine_and_restore", "quarantine_and_restore", "extra", "serve_snapshot")),
        (
            "quarantine_and_restore",
            ("extra", "quarantine_and_restore", "quarantine_and_restore", "serve_snapshot"),
        ),
    ):
        extra = replace(restart, name="extra", tried_for=(TriedFor(cause, before),))
        policy = complete(TABLE, {**REMEDIES, "extra": extra})
        assert policy[cause].remedies == expected
        assert {**policy, cause: POLICY[cause]} == POLICY, "no other row changes"


def test_a_name_that_is_no_remedy_is_refused() -> None:
    rule = replace(TABLE[Cause.REPLICA_SLOW], remedies=("drian",))
    with pytest.raises(
        ValueError, match="row 'replica_slow' names 'drian', which is no remedy; did you mean 'drain'"
    ):
        complete({**TABLE, Cause.REPLICA_SLOW: rule}, REMEDIES)
    misplaced = replace(restart, name="extra", tried_for=(TriedFor(Cause.REPLICA_SLOW, "roll_back"),))
    with pytest.raises(ValueError, match="before 'roll_back'; that row has drain, restart"):
        complete(TABLE, {**REMEDIES, "extra": misplaced})


# --- declarations that are refused ----------------------------------------------------------------------------


def test_half_a_lift_and_a_missing_docstring_are_refused() -> None:
    def act(actuators: Actuators, subject: str) -> str:
        """Act."""
        raise TargetError(f"{subject} on {actuators}")

    with pytest.raises(ValueError, match="all of lifted_by, safe_when and evidence_s"):
        remedy("act", lifted_by=drain)(act)
    with pytest.raises(ValueError, match="all of lifted_by, safe_when and evidence_s"):
        remedy("act", lifted_by=restart, safe_when=lambda _: True)(act)
    with pytest.raises(ValueError, match="need lifted_by"):
        remedy("act", masks=serve_snapshot.masks)(act)
    act.__doc__ = None
    with pytest.raises(ValueError, match=r"remedy 'act' .*docstring"):
        remedy("act")(act)


def test_a_name_that_two_files_declare_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "two_remedies"
    package.mkdir()
    for module in ("__init__", "one", "other"):
        (package / f"{module}.py").write_text(
            ""
            if module == "__init__"
            else "from monkeyproof.healing.remedy import remedy\n\n\n"
            '@remedy("same")\ndef act(actuators, subject):\n    """Act."""\n    return subject\n'
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(
        ValueError, match=r"'same' is declared twice: in two_remedies.one and in two_remedies.other"
    ):
        discover("two_remedies", [str(package)])
