"""Models that do not belong to the embedded target, and where its artifacts lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_parts import Published

from monkeyproof.errors import NotThere, TargetError, UsageError
from monkeyproof.targets.local.adapter.artifacts import LocalArtifactFiles
from monkeyproof.targets.local.control_plane.layout import REPLICAS, choose_layout, registry_link
from monkeyproof.targets.local.models.deletion import LocalDeletion
from monkeyproof.targets.local.models.other_models import LocalOtherModels
from monkeyproof.targets.local.models.publishing import PreparedModels

pytest_plugins = ("running_fixtures",)


def test_a_model_is_trained_in_a_process_of_its_own(prepared: PreparedModels, tmp_path: Path) -> None:
    model = LocalOtherModels(prepared.data_dir).make("fewer_columns", tmp_path)
    assert b"sklearn.tree" in model.read_bytes()
    with pytest.raises(UsageError, match="kind: 'none' is not one of other_purpose"):
        LocalOtherModels(prepared.data_dir).make("none", tmp_path)
    (tmp_path / "features.npz").write_bytes(b"nothing")
    with pytest.raises(TargetError, match=r"no model could be trained: .*not a file of features"):
        LocalOtherModels(tmp_path).make("other_purpose", tmp_path)


def test_the_file_that_the_registry_serves_is_found(registry: Published, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="lies outside"):
        LocalArtifactFiles(tmp_path, Outside()).file_of("1")  # type: ignore[arg-type]
    client = registry.client(timeout_s=5)
    path = LocalArtifactFiles(registry.folder / "artifacts", client).file_of("2")
    assert path.read_bytes() == client.download("2", tmp_path).read_bytes()
    with pytest.raises(NotThere, match="HTTP 404"):
        client.version("9999")
    client.close()


class Outside:
    def artifact_path(self, _: str) -> str:
        return "../elsewhere/model.pkl"


def test_another_database_is_left_alone(registry: Published, tmp_path: Path) -> None:
    client = registry.client(timeout_s=5)
    with pytest.raises(TargetError, match="is not there"):
        LocalDeletion(tmp_path / "none.db", "m", client).record("1")
    assert not (tmp_path / "none.db").exists()
    deletion = LocalDeletion(registry.folder / "mlflow.db", registry.prepared.model, client)
    record = dict(deletion.record("1"))
    assert not deletion.restore("1", record)
    with pytest.raises(TargetError, match="no version 9999"):
        deletion.record("9999")
    with pytest.raises(TargetError, match="no row of version 9999"):
        deletion.restore("9999", record)
    (tmp_path / "text.db").write_text("no database, though it is as long as the header of one has to be" * 4)
    with pytest.raises(TargetError, match=r"text\.db: file is not a database"):
        LocalDeletion(tmp_path / "text.db", "m", client).record("1")
    client.close()


def test_each_replica_has_its_own_registry_link_before_the_shared_one(tmp_path: Path) -> None:
    layout = choose_layout(tmp_path, tmp_path, 0)
    common = layout.links["replica->registry"]
    assert common["forward"] == f"127.0.0.1:{layout.ports['registry']}"
    ways = [layout.links[registry_link(name)] for name in REPLICAS]
    assert {one["forward"] for one in ways} == {common["listen"]}
    assert len({one["listen"] for one in ways} | {common["listen"]}) == 4
