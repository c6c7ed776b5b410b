"""``results.json``: a campaign as one JSON file that reads back without loss. docs/results.md lists its keys."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from monkeyproof.errors import UsageError
from monkeyproof.reports.format_table import report_format
from monkeyproof.reports.model.report import Report
from monkeyproof.reports.model.verdict import as_json
from monkeyproof.reports.stats.proportions import Proportion
from monkeyproof.reports.stats.summary import TrialGroup
from monkeyproof.types import Campaign, Json

VERSION = 1
RESULTS_FILE = "results.json"

_ADAPTER = TypeAdapter(Campaign)


def schema() -> dict[str, Any]:
    """The JSON Schema of ``results.json``, derived from the types."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ADAPTER.json_schema()}


@report_format(RESULTS_FILE, name="results")
def render(report: Report) -> str:
    """The campaign as JSON, and under ``verdict`` and ``summary`` what is derived from it.

    Raises:
        UsageError: as ``campaign_text``.
    """
    return campaign_text(report.campaign, _derived(report))


def campaign_text(campaign: Campaign, derived: Mapping[str, Json] | None = None) -> str:
    """The campaign as JSON. A number that is not finite is unknown, and becomes null.

    Raises:
        UsageError: the format needs a number where the campaign has none.
    """
    value = _plain(campaign)
    _check(value, RESULTS_FILE)
    return json.dumps({**value, **_plain(derived or {})}, indent=2, default=str) + "\n"


def read_results(path: Path) -> Campaign:
    """Read a campaign; ``path`` is the file or the campaign's folder.

    Raises:
        UsageError: there is none, it is damaged, or it was written by a newer version.
    """
    if path.is_dir():
        path = path / RESULTS_FILE
    try:
        value = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise UsageError(f"{path}: no results were written there; name a campaign's folder") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: damaged, or not JSON: {error}") from None
    version = value.get("version") if isinstance(value, dict) else None
    if not isinstance(version, int):
        raise UsageError(f"{path}: not a campaign's results: it has no version")
    if version > VERSION:
        raise UsageError(
            f"{path}: written by a newer monkeyproof (results version {version}, this one reads up to "
            f"{VERSION}); upgrade to read it"
        )
    return _check(value, str(path))


def _derived(report: Report) -> dict[str, Json]:
    """The verdict and the figures of the printed table, so that no reader has to compute them."""
    return {
        "verdict": as_json(report.verdict),
        "summary": {
            "groups": [_group(group) for group in report.statistics.groups],
            "comparisons": [asdict(pair) for pair in report.statistics.pairs],
        },
    }


def _group(group: TrialGroup) -> Mapping[str, Json]:
    return {
        "experiment": group.experiment,
        "arm": group.arm,
        "sham": group.sham,
        "storm": group.storm,
        "trials_count": len(group.trials),
        "valid_count": len(group.observations),
        "censored_count": group.censored_count,
        "outcomes": {str(outcome): number for outcome, number in group.counts.items()},
        "median": asdict(group.median),
        "median_earliest_s": group.median_earliest_s,
        "ttr_width_median_s": group.ttr_width_median_s,
        "p90": asdict(group.p90),
        "restricted_mean": asdict(group.restricted_mean),
        "horizon_s": group.horizon_s,
        "in_time": _proportion(group.in_time),
        "absorbed": _proportion(group.absorbed),
        "served_wrong": _proportion(group.served_wrong),
        "false_heals_count": sum(bool(trial.false_heals) for trial in group.trials),
    }


def _proportion(found: Proportion | None) -> Json:
    return None if found is None else asdict(found)


def _plain(value: Any) -> Json:
    """What json.dumps can write: tuples become lists, dataclasses mappings, and NaN and infinity null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, str):
        return str(value).encode("utf-8", "backslashreplace").decode()  # Half a character is not text.
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    if hasattr(value, "item"):
        return _plain(value.item())  # A numpy scalar, which measuring code hands over easily.
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _check(value: Json, where: str) -> Campaign:
    try:
        return _ADAPTER.validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where}: {place}: {first['msg']} (found {first['input']!r:.80})") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
