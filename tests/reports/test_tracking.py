"""Campaigns as MLflow runs, and what a dead or forbidden server does."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_campaign import broken_rollback, corrupt_records, feature_store_outage
from samples import campaign_of, write_trial

from monkeyproof.errors import UsageError
from monkeyproof.reports.formats import mlflow_tracking
from monkeyproof.reports.model.report import Report, build


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("campaign")
    plans = [corrupt_records("elephant", 1), broken_rollback("none", 1), feature_store_outage("none", 2)]
    return build(campaign_of([write_trial(folder, plan, 1, index) for index, plan in enumerate(plans)]), folder)


@pytest.fixture
def hung() -> Iterator[str]:
    """A server that accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def runs(store: Path, parent: str) -> dict[str, Any]:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_tracking.tracking_uri(None, store))
    (experiment,) = client.search_experiments(filter_string=f"name = '{mlflow_tracking.EXPERIMENT}'")
    children = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent}'")
    return {run.data.params["experiment"]: run for run in children}


def test_campaign_as_nested_runs(report: Report, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<p>hello")
    store = tmp_path / "store"
    parent = mlflow_tracking.log_campaign(report, [page], uri=None, store=store)

    children = runs(store, parent)
    assert set(children) == {"corrupt-records", "broken-rollback", "feature-store-outage"}
    healed = children["corrupt-records"]
    found = report.campaign.trials[0].recovery
    assert found.ttr is not None
    assert healed.data.params == {
        "experiment": "corrupt-records",
        "arm": "elephant",
        "seed": "1",
        "target": "embedded",
    }
    assert healed.data.tags["outcome"] == "healed"
    assert healed.data.metrics["ttr_high_s"] == pytest.approx(found.ttr.high_s)
    assert healed.data.metrics["recovered_under_fault"] == 1.0
    assert healed.data.metrics["wrong"] == found.wrong_count
    assert healed.info.status == "FINISHED"
    censored = children["broken-rollback"].data.metrics
    assert censored["recovered_under_fault"] == 0.0
    assert "ttr_high_s" not in censored
    assert "ttd_s" not in censored
    # An invalid trial says nothing of it, not even "no".
    assert "recovered_under_fault" not in children["feature-store-outage"].data.metrics
    assert list((store / "artifacts").rglob("report.html"))

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_tracking.tracking_uri(None, store))
    assert client.get_run(parent).data.tags["verdict"] == "inconclusive"

    again = mlflow_tracking.log_campaign(report, [], uri=None, store=store)
    assert again != parent


@pytest.mark.parametrize(
    ("uri", "registry"),
    [
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:5000"),
        ("http://localhost:5000", "http://127.0.0.1:5000/"),
        ("HTTP://user:word@127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://registry.example", "http://registry.example:80"),
    ],
)
def test_registry_under_test_is_refused(report: Report, tmp_path: Path, uri: str, registry: str) -> None:
    with pytest.raises(UsageError, match="registry under test") as refused:
        mlflow_tracking.log_campaign(report, [], uri=uri, store=tmp_path, forbidden=[registry])
    assert "word" not in str(refused.value)


def test_dead_server(report: Report, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UsageError, match="does not answer") as refused:
        mlflow_tracking.log_campaign(
            report,
            [],
            uri=f"http://me:secret@127.0.0.1:{port}",
            store=tmp_path,
            forbidden=["http://127.0.0.1:1"],
        )
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_hung_server(report: Report, tmp_path: Path, hung: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request, tried twice: what that costs is known from one that gives up sooner."""
    import mlflow  # noqa: F401 - it takes seconds, and they are not the server's

    tries, slack_s = 1 + int(mlflow_tracking._ENVIRONMENT["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]), 1.8
    assert tries * float(mlflow_tracking._ENVIRONMENT["MLFLOW_HTTP_REQUEST_TIMEOUT"]) + slack_s < 10
    monkeypatch.setitem(mlflow_tracking._ENVIRONMENT, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    before = dict(os.environ)
    began_s = time.monotonic()
    with pytest.raises(UsageError, match="does not answer"):
        mlflow_tracking.log_campaign(report, [], uri=hung, store=tmp_path)
    assert time.monotonic() - began_s < tries * 1.0 + slack_s
    assert dict(os.environ) == before


def test_unwritable_store(report: Report, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="could not be logged"):
        mlflow_tracking.log_campaign(report, [], uri="nonsense://x", store=tmp_path)
