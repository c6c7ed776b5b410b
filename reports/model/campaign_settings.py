"""A campaign's SLO and prober settings as typed values: ``results.json`` carries them as plain mappings."""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from monkeyproof.config.target_file import ProberSettings, Slo
from monkeyproof.errors import UsageError
from monkeyproof.types import Campaign, Json

_Settings = TypeVar("_Settings")


def slo_of(campaign: Campaign) -> Slo:
    """The campaign's SLO, typed.

    Raises:
        UsageError: a key is missing, or a value is invalid.
    """
    return _typed(TypeAdapter(Slo), campaign.slo, "slo")


def prober_of(campaign: Campaign) -> ProberSettings:
    """The prober's settings, typed.

    Raises:
        UsageError: a key is missing, or a value is invalid.
    """
    return _typed(TypeAdapter(ProberSettings), campaign.prober, "prober")


def _typed(adapter: TypeAdapter[_Settings], value: Json, name: str) -> _Settings:
    try:
        return adapter.validate_python(dict(value))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([name, *(str(part) for part in first["loc"])])
        raise UsageError(f"the campaign's results: {place}: {first['msg']}") from None
