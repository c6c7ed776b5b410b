"""Rollbacks that lead nowhere, in a real MLflow registry: a version deleted, spoilt or pinned, a bad one back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fault_world import impatient
from model_world import bad_answers

from monkeyproof.clock import wait_for
from monkeyproof.errors import Refusal, TargetError, Unproven
from monkeyproof.faults import registry
from monkeyproof.faults.registry import pinning, promotion
from monkeyproof.faults.support.file_restore import restore_file
from monkeyproof.injection.inject import current, revert
from monkeyproof.paths import home
from monkeyproof.targets import port
from monkeyproof.undo.entries import read_log

if TYPE_CHECKING:
    from model_fixtures import Here

pytest_plugins = ("running_fixtures", "model_fixtures")


def test_a_deleted_version_is_restored_row_by_row(here: Here) -> None:
    deletion = here.target.find(port.Deletion)
    here.registry.set_champion("1")
    record = deletion.record("1")
    assert [one["alias"] for one in record["aliases"]] == ["champion"]
    assert here.follower.version == "1"
    found = registry.delete_previous("3")
    assert found["data"]["previous"] == "1"
    assert [one.version for one in here.registry.versions()] == ["3", "2"]
    with pytest.raises(TargetError, match="no version 1"):
        deletion.record("1")
    with pytest.raises(TargetError):
        here.registry.set_champion("1")
    (opened,) = read_log(current().undo.path).open
    assert revert() == ["version 1 is there again; the champion is version 1 again"]
    assert deletion.record("1") == record
    assert opened.undo.run(here.target) == "version 1 is there already; the champion is version 1 already"
    here.registry.set_champion("2")


def test_the_bad_champion_comes_back_as_often_as_configured(here: Here) -> None:
    registry.flip_back("1", times=2, after_ms=0)
    deployer = next(iter(promotion._deployers.values()))
    for again in (1, 2):
        here.registry.set_champion("2")
        assert wait_for(lambda: here.registry.champion() == "1", within_s=5)
        assert wait_for(lambda again=again: deployer.promoted_again == again, within_s=5)
    here.registry.set_champion("2")
    deployer._thread.join(5)
    assert not deployer._thread.is_alive()
    assert here.registry.champion() == "2"
    (opened,) = current().undo.open_faults()
    (said,) = revert()
    assert "version 1 had been promoted again 2 times" in said
    # Another process, which has no such thread, does the same.
    assert opened.undo.run(here.target) == "the champion is version 2 already"


@pytest.mark.parametrize("process", ["the trial's", "another"])
def test_a_users_choice_during_the_flips_is_kept(here: Here, process: str) -> None:
    registry.flip_back("1", times=0, after_ms=0)
    deployer = next(iter(promotion._deployers.values()))
    here.registry.set_champion("3")
    assert wait_for(lambda: deployer.promoted_again == 1, within_s=5)
    assert here.registry.champion() == "1"
    (opened,) = current().undo.open_faults()
    if process == "another":
        deployer.stop()
        promotion._deployers.clear()
    (said,) = revert()
    assert "the champion is version 3 again" in said
    assert here.registry.champion() == "3"
    assert opened.undo.run(here.target).startswith("the champion is version 3 by now")
    assert here.registry.champion() == "3"
    assert not list(home().glob("displaced-*"))
    here.registry.set_champion("2")


def test_the_choice_of_another_fault_is_not_a_users_choice(here: Here) -> None:
    registry.flip_back("1", times=0, after_ms=300)
    deployer = next(iter(promotion._deployers.values()))
    registry.promote_degraded("3")
    assert wait_for(lambda: deployer.promoted_again == 1, within_s=5)
    assert "the champion is version 2 again" in revert()[-1]
    assert here.registry.champion() == "2"


def test_nothing_is_promoted_after_the_revert(here: Here) -> None:
    registry.flip_back(times=0, after_ms=60_000)
    deployer = next(iter(promotion._deployers.values()))
    here.registry.set_champion("2")
    assert wait_for(lambda: here.registry.champion() == "2", within_s=5)
    revert()
    assert not deployer._thread.is_alive()
    assert not promotion._deployers
    assert here.registry.champion() == "2"


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_good_name_for_bad_bytes_is_undone_with_its_digest(here: Here, interrupted: bool) -> None:
    tag = here.registry.version("2").sha256
    found = registry.corrupt_last_good()
    bad = here.registry.version("3").sha256
    assert found["data"] == {"version": "2", "before": tag, "after": bad}
    assert here.registry.version("2").sha256 == bad
    assert here.follower.version == "2"
    here.follower.start_anew()
    assert here.follower.version == "2"  # Its digest fits.
    assert bad_answers(here.follower, here.data) > 40
    (opened,) = current().undo.open_faults()
    if interrupted:  # It was killed between the two.
        arguments = dict(opened.undo.arguments)
        restore_file(here.target, **{name: arguments[name] for name in ("path", "kept", "before", "after")})
    (said,) = revert()
    assert "as it was" in said
    assert here.registry.version("2").sha256 == tag
    assert "as it was already" in opened.undo.run(here.target)


def test_a_digest_that_another_program_set_stays(here: Here) -> None:
    tag = here.registry.version("2").sha256
    registry.corrupt_last_good()
    here.registry.set_tag("2", "sha256", "theirs")
    (said,) = revert()
    assert "set by another program: left as it is" in said
    here.registry.set_tag("2", "sha256", tag)


def test_a_pinned_replica_is_reached_by_no_rollback(here: Here) -> None:
    found = registry.pin()
    assert found["data"] == {"replica": "replica-1", "version": "3", "champion": "2"}
    assert here.follower.version == "3"
    with pytest.raises(Refusal, match="replica-1 is pinned to version 3 already"):
        registry.pin("replica-1", "1")
    here.registry.set_champion("1")
    here.registry.set_champion("2")
    assert here.follower.version == "3"
    (opened,) = current().undo.open_faults()
    assert revert() == ["replica-1 follows the registry again"]
    assert here.follower.version == "2"
    assert opened.undo.run(here.target) == "replica-1 follows the registry already"
    registry.pin(version="1")
    here.follower.pins.pin("replica-1", "3")
    (said,) = revert()
    assert said == "replica-1 is pinned to version 3 by now, by another program: left as it is"
    here.follower.pins.unpin("replica-1")


@pytest.mark.parametrize("deaf", ["the target", "the replica"])
def test_a_pin_to_the_champion_is_proven_by_the_pin_alone(here: Here, monkeypatch, deaf: str) -> None:
    """The replica serves the champion anyway."""
    assert registry.pin(version="2")["data"]["champion"] == "2"
    revert()
    monkeypatch.setattr(pinning, "inject", impatient(pinning.inject))
    if deaf == "the target":
        monkeypatch.setattr(here.follower.pins, "pin", lambda replica, version: None)  # noqa: ARG005
    else:
        monkeypatch.setattr(here.follower.model, "_pin", lambda: "")
    with pytest.raises(Unproven):
        registry.pin(version="2")
    assert not here.follower.pins.pinned()


def test_an_alias_goes_with_its_version_and_comes_back_with_it(here: Here) -> None:
    deletion = here.target.find(port.Deletion)
    record = deletion.record("3")
    assert [one["alias"] for one in record["aliases"]] == ["challenger"]
    deletion.delete("3")
    assert deletion.restore("3", record)
    assert deletion.record("3") == record
    assert not deletion.restore("3", record)
