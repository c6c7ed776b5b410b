"""Campaigns as MLflow runs: one parent for the campaign, one nested run for each trial, the report as artifact.

The runs go to a tracking server of the user, or to a store on this machine; never to the registry under test, for
a harness that writes into the system that it breaks changes what it measures. mlflow's defaults wait four minutes
for a dead server, so this module bounds every wait.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from monkeyproof.errors import UsageError
from monkeyproof.reports.model.report import Report
from monkeyproof.reports.stats.survival import observe
from monkeyproof.reports.text import clean, short
from monkeyproof.types import TrialResult

EXPERIMENT = "monkeyproof"
BUDGET_S = 60.0
"""A server that answers slowly may delay a campaign by no more."""

_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "3",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}
_TALKATIVE = ("mlflow", "alembic")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def tracking_uri(uri: str | None, store: Path) -> str:
    """Where a campaign is logged: to ``uri``, else to a SQLite file in ``store`` (mlflow has given up its plain
    file store)."""
    return uri or f"sqlite:///{store.resolve() / 'mlflow.db'}"


def public_uri(uri: str | None, store: Path) -> str:
    """``tracking_uri`` as it may be shown: without the user and password that it may carry."""
    return _public(tracking_uri(uri, store))


def log_campaign(
    report: Report, files: Sequence[Path], *, uri: str | None, store: Path, forbidden: Collection[str] = ()
) -> str:
    """Log a campaign and the files of its report.

    Args:
        files: Become artifacts of the parent run.
        uri: Of a tracking server; None for the local store.
        store: The folder of the local store.
        forbidden: Addresses that lead to the registry under test.

    Returns:
        The id of the parent run.

    Raises:
        UsageError: ``uri`` is the registry under test, or the campaign could not be logged there.
    """
    chosen = tracking_uri(uri, store)
    if any(_same(chosen, address) for address in forbidden):
        raise UsageError(
            f"not logging to {_public(chosen)}: it is the registry under test. Unset MLFLOW_TRACKING_URI, or name "
            "another server in it"
        )
    if uri is None:
        store.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _bounded():
        try:
            return _log(report, files, chosen, store if uri is None else None)
        except UsageError:
            raise
        except Exception as error:  # A server, a driver or a disk may raise anything; the report is written.
            raise UsageError(
                f"the campaign could not be logged to {_public(chosen)}: {_why(error)}. Its report is complete; "
                "check that the server runs, or unset MLFLOW_TRACKING_URI to log on this machine"
            ) from error


def _log(report: Report, files: Sequence[Path], uri: str, store: Path | None) -> str:
    from mlflow.tracking import MlflowClient

    deadline_s = time.monotonic() + BUDGET_S
    client = MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(EXPERIMENT)
    artifacts = None if store is None else (store.resolve() / "artifacts").as_uri()
    experiment = (
        found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=artifacts)
    )
    campaign, verdict = report.campaign, report.verdict
    tags = {
        "target": short(campaign.target, 200),
        "started_utc": short(campaign.started_utc, 60),
        "verdict": str(verdict.decision),
        "verdict_reason": short(verdict.reason, 500),
    }
    parent = _create(client, experiment, campaign.name, tags)
    _batch(
        client,
        parent,
        {
            "trials": float(len(campaign.trials)),
            "recovered_under_fault": float(
                sum(trial.recovery.outcome.under_fault and not trial.sham for trial in campaign.trials)
            ),
            "duration_s": campaign.duration_s,
        },
        {"target": campaign.target, "seed": str(campaign.seed)},
    )
    for done, trial in enumerate(campaign.trials):
        if time.monotonic() > deadline_s:
            client.set_terminated(parent, "FAILED")
            raise UsageError(
                f"logging to {_public(uri)} took longer than {BUDGET_S:g} s: {done} of {len(campaign.trials)} "
                "trials are logged. The report is complete"
            )
        _log_trial(client, experiment, parent, trial)
    for file in files:
        client.log_artifact(parent, str(file))
    client.set_terminated(parent)
    return parent


def _log_trial(client: Any, experiment: str, parent: str, trial: TrialResult) -> None:
    name = f"{trial.experiment} {trial.arm} seed {trial.seed}"
    tags = {"mlflow.parentRunId": parent, "outcome": str(trial.recovery.outcome), "sham": str(trial.sham)}
    run = _create(client, experiment, name, tags)
    parameters = {
        "experiment": trial.experiment,
        "arm": trial.arm,
        "seed": str(trial.seed),
        "target": trial.target,
    }
    _batch(client, run, metrics_of(trial), parameters)
    client.set_terminated(run)


def metrics_of(trial: TrialResult) -> dict[str, float]:
    """The known numbers of a trial. A number that is not known is missing, never zero."""
    found, seen = trial.recovery, observe(trial.recovery)
    metrics = {
        "bad": float(found.bad_count),
        "wrong": float(found.wrong_count),
        "resilience_loss_s": found.resilience_loss_s,
        "ttr_high_s": found.ttr.high_s if found.ttr else None,
        "ttd_s": found.ttd_s,
        "silent_s": found.silent_s,
        "recovered_under_fault": None if seen is None or trial.sham else float(found.outcome.under_fault),
        "false_heals": float(len(trial.false_heals)) if trial.sham or trial.benign else None,
    }
    return {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}


def _create(client: Any, experiment: str, name: str, tags: Mapping[str, str]) -> str:
    run = client.create_run(experiment, run_name=short(name, 200), tags=dict(tags))
    return str(run.info.run_id)


def _batch(client: Any, run: str, metrics: Mapping[str, float], parameters: Mapping[str, str]) -> None:
    from mlflow.entities import Metric, Param

    now_ms = int(time.time() * 1000)
    client.log_batch(
        run,
        metrics=[Metric(name, value, now_ms, 0) for name, value in metrics.items()],
        params=[Param(name, short(value, 500)) for name, value in parameters.items()],
    )


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """mlflow with short waits, no telemetry and no chatter; everything is restored afterwards."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    import mlflow.tracking  # noqa: F401  Its import sets the levels of its loggers, and starts its telemetry.

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _why(error: Exception) -> str:
    """The first cause in a few words; the whole chain of it stays attached to the exception."""
    words = str(error) or type(error).__name__
    return "it does not answer" if "Max retries exceeded" in words else _public(short(words, 300))


def _same(one: str, other: str) -> bool:
    return _place(one) == _place(other)


def _place(uri: str) -> tuple[str, str, int | None, str]:
    """What a URI names, however it is spelled."""
    parts = urlsplit(clean(uri).strip())
    host = (parts.hostname or "").lower()
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    local = host in ("localhost", "127.0.0.1", "::1", "0.0.0.0")
    return parts.scheme, "127.0.0.1" if local else host, port, parts.path.rstrip("/")


def _public(text: str) -> str:
    """Without the user and password that a URI may carry."""
    return _CREDENTIALS.sub("", clean(text))
