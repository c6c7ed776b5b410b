"""Damaged and wrong models in a real MLflow registry: proven by what it gives, and restored bit by bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fault_world import impatient
from model_world import bad_answers
from running_parts import Published

from monkeyproof.errors import NotReverted, Refusal, Unproven, UsageError
from monkeyproof.faults import models, registry
from monkeyproof.faults.support import champion, file_restore
from monkeyproof.faults.support.bitflips import Flips, digest_of, flip_in_file
from monkeyproof.injection.inject import current, revert
from monkeyproof.targets import port
from monkeyproof.undo.entries import read_log

if TYPE_CHECKING:
    from model_fixtures import Here

pytest_plugins = ("running_fixtures", "model_fixtures")


DAMAGE = {
    "one bit": (models.flip_bits, "sha256 differs"),
    "exponents": (lambda: models.flip_bits("2", bits=100, where="exponent"), "sha256 differs"),
    "cut": (lambda: models.truncate(keep_share=0.25), "sha256 differs"),
    "empty": (lambda: models.truncate(keep_share=0), "sha256 differs"),
    "gone": (models.remove, "HTTP"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_proven_by_the_registrys_bytes_and_restored_bit_by_bit(here: Here, how: str, caplog) -> None:
    inject, refused = DAMAGE[how]
    path = here.files.file_of("2")
    clean = digest_of(path)
    found = inject()
    assert found["data"]["before"] == clean != found["data"]["after"]
    assert file_restore.digest_now(path) == found["data"]["after"]
    # It is in memory: no answer changes. A replica that loads it anew compares digests, and does not serve it.
    assert here.follower.version == "2"
    here.follower.start_anew()
    assert here.follower.version == "0"
    assert refused in caplog.text
    (opened,) = current().undo.open_faults()
    assert len(revert()) == 1
    assert digest_of(path) == clean
    assert here.follower.version == "2"
    assert "as it was already" in opened.undo.run(here.target)


def test_bits_are_chosen_by_the_seed_and_exponents_are_the_weights_own(here: Here) -> None:
    path = here.files.file_of("2")
    first = models.flip_bits(bits=5)["data"]
    revert()
    assert models.flip_bits(bits=5)["data"] == first
    revert()
    clean = path.read_bytes()
    models.flip_bits(bits=30, where="exponent")
    changed = [one ^ other for one, other in zip(clean, path.read_bytes(), strict=True) if one != other]
    assert changed == [0x40] * 30  # The highest bit of the exponent, in the last byte of a float64.


@pytest.mark.parametrize("state", ["half of the bits", "a stranger's byte", "gone"])
def test_a_half_finished_write_is_distinguished_from_another_programs(here: Here, state: str) -> None:
    path = here.files.file_of("2")
    clean = path.read_bytes()
    models.flip_bits(bits=40)
    (opened,) = read_log(current().undo.path).open  # All that another process would have.
    bits = opened.undo.arguments["bits"]
    if state == "half of the bits":
        flip_in_file(path, Flips(np.array(bits[:20])))
        assert "as it was again" in opened.undo.run(here.target)
        assert path.read_bytes() == clean
        return
    damaged = path.read_bytes()
    if state == "gone":
        path.unlink()
    else:
        path.write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    theirs = file_restore.digest_now(path)
    assert "another program changed it" in opened.undo.run(here.target)
    assert file_restore.digest_now(path) == theirs
    path.write_bytes(damaged)


@pytest.mark.parametrize(
    ("kind", "damaged"), [("flip_bits", True), ("truncate", True), ("remove", False), ("corrupt_last_good", False)]
)
def test_a_kill_in_the_middle_leaves_an_undo(
    here: Here, registry: Published, tmp_path: Path, kind: str, damaged: bool
) -> None:
    path = here.files.file_of("2")
    clean, beside = digest_of(path), set(path.parent.iterdir())
    (tmp_path / "killed").mkdir()
    script = Path(__file__).parents[1] / "support" / "killed_in_the_middle.py"
    arguments = [kind, registry.url, str(registry.folder / "artifacts"), str(tmp_path / "killed")]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (digest_of(path) != clean) == damaged
    (opened,) = read_log(tmp_path / "killed" / "undo.jsonl").open
    assert ("again" if damaged else "already") in opened.undo.run(here.target)
    assert digest_of(path) == clean
    assert set(path.parent.iterdir()) == beside
    assert "already" in opened.undo.run(here.target)


def test_a_file_that_another_program_wrote_stays_and_the_backup_is_named(here: Here) -> None:
    path = here.files.file_of("1")
    clean = path.read_bytes()
    models.truncate("1")
    (opened,) = current().undo.open_faults()
    kept = Path(opened.undo.arguments["kept"])
    assert kept.read_bytes() == clean
    assert kept.stat().st_mode & 0o077 == 0
    path.write_bytes(b"another user's")
    (said,) = revert()
    assert f"left as it is; its old bytes are in {kept}" in said
    assert path.read_bytes() == b"another user's"
    path.write_bytes(kept.read_bytes())
    assert "already" in opened.undo.run(here.target)


def test_a_damaged_backup_is_never_restored(here: Here) -> None:
    path = here.files.file_of("1")
    models.remove("1")
    (opened,) = current().undo.open_faults()
    kept = Path(opened.undo.arguments["kept"])
    clean = kept.read_bytes()
    kept.write_bytes(clean[:-1])
    with pytest.raises(NotReverted, match="is missing or damaged"):
        revert()
    assert not path.exists()
    kept.write_bytes(clean)
    revert()


def test_without_room_for_a_copy_nothing_is_damaged(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, os.strerror(28))

    path = here.files.file_of("2")
    clean = digest_of(path)
    with monkeypatch.context() as patch:
        patch.setattr(file_restore.os, "fsync", full)
        with pytest.raises(Refusal, match="could not be restored"):
            file_restore.back_up(path).save()
    assert digest_of(path) == clean


MISTAKES = [
    (lambda: models.flip_bits(bits=0), UsageError, "bits: 0 is not a whole number from 1 to 10000"),
    (lambda: models.flip_bits(bits=True), UsageError, "bits: True"),
    (lambda: models.flip_bits(where="mantissa"), UsageError, "where: 'mantissa' is not one of any, exponent"),
    (lambda: models.flip_bits(bits=9999, where="exponent"), UsageError, "weights below 2 are needed"),
    (lambda: models.flip_bits("9"), UsageError, "no version '9'; it has 3, 2, 1"),
    (lambda: models.truncate(keep_share=1.0), UsageError, "keep_share: 1.0 is not in"),
    (lambda: models.remove("nine"), UsageError, "no version 'nine'"),
    (lambda: models.promote_damaged_copy(bits=-1), UsageError, "bits: -1"),
    (lambda: models.deploy_wrong_schema("none"), UsageError, "schema: 'none' is not one of other_columns"),
    (lambda: models.deploy_wrong_version("/nowhere"), UsageError, "model: /nowhere is no file"),
    (lambda: registry.flip_back(times=-1), UsageError, "times: -1"),
    (lambda: registry.flip_back(after_ms=-1), UsageError, "after_ms: -1"),
    (lambda: registry.delete_previous("2"), Refusal, "version 2 is the champion already"),
    (lambda: registry.corrupt_last_good("7"), UsageError, "no version '7'"),
    (lambda: registry.publish_copy("7"), UsageError, "no version '7'"),
    (lambda: registry.pin("replica-9"), UsageError, "no replica 'replica-9'; there are replica-1"),
    (lambda: registry.pin(version="9"), UsageError, "no version '9'"),
    (lambda: registry.slow(1, 2, link="web"), UsageError, "'web' does not lead to the registry"),
]


@pytest.mark.usefixtures("here")
def test_mistakes_are_reported_before_anything_is_done() -> None:
    # One after the other: what they find is set up for all of them.
    for inject, error, words in MISTAKES:
        with pytest.raises(error) as refusal:
            inject()
        assert words in str(refusal.value)
    assert not read_log(current().undo.path).intents


NEEDED = [
    (port.ArtifactFiles, models.flip_bits, "offers no artifact files control"),
    (port.Publishing, models.promote_damaged_copy, "offers no publishing control"),
    (port.OtherModels, models.deploy_wrong_version, "offers no other models control"),
    (port.Deletion, registry.delete_previous, "offers no deletion control"),
]


def test_a_target_that_cannot_do_it_refuses_in_words(here: Here) -> None:
    for capability, inject, words in NEEDED:
        offered = here.target.parts.pop(capability)
        with pytest.raises(Refusal, match=words):
            inject()
        here.target.parts[capability] = offered


# --- published and promoted ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inject", "wrong"),
    [
        (models.promote_damaged_copy, 40),
        (models.deploy_wrong_version, 20),
        (models.deploy_wrong_schema, 40),
    ],
)
def test_a_wrong_model_is_served_with_a_digest_that_fits_and_answers_wrongly(here: Here, inject, wrong) -> None:
    found = inject()
    version = found["data"]["version"]
    assert here.registry.champion() == here.follower.version == version
    assert here.registry.version(version).sha256 == found["data"]["sha256"]
    assert (here.registry.version(version).accuracy or 0) > 0.99  # As its publisher says.
    assert bad_answers(here.follower, here.data) >= wrong
    (opened,) = current().undo.open_faults()
    (said,) = revert()
    assert said == f"version {version} is deleted; the champion is version 2"
    assert here.follower.version == "2"
    assert bad_answers(here.follower, here.data) == 0
    assert opened.undo.run(here.target) == "the version that was published does not exist any more"


def test_a_model_with_fewer_columns_is_refused_after_one_question(here: Here) -> None:
    found = models.deploy_wrong_schema("fewer_columns")
    assert found["data"]["cannot_load"] == ["replica-1"]
    assert here.registry.champion() == found["data"]["version"]
    assert here.follower.version == "2"
    assert bad_answers(here.follower, here.data) == 0


def test_a_model_of_ones_own_is_deployed(here: Here, tmp_path: Path) -> None:
    model = here.target.find(port.OtherModels).make("other_columns", tmp_path)
    del here.target.parts[port.OtherModels]
    found = models.deploy_wrong_version(model=str(model))
    assert found["data"]["sha256"] == digest_of(model)
    assert found["data"]["serving"] == ["replica-1"]


def test_a_release_that_no_replica_follows_is_not_proven_and_leaves_nothing(here: Here, monkeypatch) -> None:
    monkeypatch.setattr(champion, "inject", impatient(champion.inject))
    monkeypatch.setattr(here.follower.model, "poll", lambda: None)
    with pytest.raises(Unproven):
        models.promote_damaged_copy()


def test_a_healer_that_is_quicker_than_the_proof_does_not_undo_it(here: Here, monkeypatch) -> None:
    scrape, looks = champion.metrics_of, []

    def slowly(replica: port.Replica) -> dict[str, float]:
        looks.append(scrape(replica))
        if len(looks) == 2:  # The first look is before the act; here its version is being served.
            here.registry.set_champion("2")
            return {}
        return dict(looks[1]) if len(looks) > 2 else dict(looks[0])

    monkeypatch.setattr(champion, "metrics_of", slowly)
    found = models.promote_damaged_copy()
    assert here.registry.champion() == "2"
    assert found["data"]["serving"] == ["replica-1"]


@pytest.mark.parametrize("promote", [False, True])
def test_a_fault_that_another_program_ended_is_reported(here: Here, promote: bool) -> None:
    found = registry.publish_copy(promote=promote)
    (look,) = current().presence_checks.values()
    assert look() == ""
    if promote:
        here.registry.set_champion("1")
    else:
        here.registry.delete(found["data"]["version"])
    assert look()
    here.registry.set_champion("2")


def test_what_a_healer_chose_since_stays_but_not_what_was_published(here: Here) -> None:
    models.promote_damaged_copy()
    here.registry.set_champion("1")
    (said,) = revert()
    assert "the champion is version 1" in said
    here.registry.set_champion("2")


def test_a_copy_is_as_good_as_its_original(here: Here) -> None:
    found = registry.publish_copy()
    version = found["data"]["version"]
    assert found["data"]["sha256"] == here.registry.version("2").sha256
    assert here.registry.champion() == "2"
    assert here.registry.version(version).tags == here.registry.version("2").tags
    revert()
    registry.publish_copy(promote=True)
    assert here.follower.version == here.registry.champion() != "2"
    assert bad_answers(here.follower, here.data) == 0
