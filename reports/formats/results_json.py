"""``results.json``: a campaign as one JSON file, written and read back without loss. See docs/results.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from monkeyproof.config.target_file import ProberSettings, Slo
from monkeyproof.errors import UsageError
from monkeyproof.record.history import write_json
from monkeyproof.types import Campaign, Json

VERSION = 1
RESULTS_FILE = "results.json"

_ADAPTER = TypeAdapter(Campaign)
_Kind = TypeVar("_Kind")


def schema() -> dict[str, Any]:
    """The JSON Schema of ``results.json``, derived from the types."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ADAPTER.json_schema()}


def write_results(campaign: Campaign, path: Path, derived: Mapping[str, Json] | None = None) -> Path:
    """Write a campaign, and what is derived from it. A number that is not finite is unknown, and written as null.

    Raises:
        UsageError: such a number stands where the format needs one.
    """
    value = _plain(campaign)
    _check(value, str(path))
    write_json(path, {**value, **_plain(derived or {})})
    return path


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


def slo_of(campaign: Campaign) -> Slo:
    """The campaign's SLO, typed.

    Raises:
        UsageError: it is not one.
    """
    return _typed(TypeAdapter(Slo), campaign.slo, "slo")


def prober_of(campaign: Campaign) -> ProberSettings:
    """The prober's settings, typed.

    Raises:
        UsageError: they are none.
    """
    return _typed(TypeAdapter(ProberSettings), campaign.prober, "prober")


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


def _typed(adapter: TypeAdapter[_Kind], value: Json, where: str) -> _Kind:
    try:
        return adapter.validate_python(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"])])
        raise UsageError(f"the campaign's results: {place}: {first['msg']}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
