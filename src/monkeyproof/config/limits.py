"""The bounds that a target file sets: how far a fault may go, and what ends a trial at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, with_config

_STRICT = ConfigDict(extra="forbid")
_Url = Annotated[str, Field(pattern=r"^https?://[^/\s]+(/\S*)?$")]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]

DAYS = 30.0
"""Of an error budget, where the file says nothing else."""
STATUS = 200


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Limits:
    """How far a fault may go. None: as far as the experiment says."""

    replicas_down: Annotated[int, Field(ge=1)] | None = None
    """At once, whoever took them down; of Kubernetes, pods."""
    rows_share: _Share | None = None
    """Share of rows in which at least one value is corrupted."""
    latency_ms: _Positive | None = None
    """What one request may be held for."""

    def or_else(self, other: Limits) -> Limits:
        """These, and the other's where these say nothing."""
        return Limits(
            self.replicas_down if self.replicas_down is not None else other.replicas_down,
            self.rows_share if self.rows_share is not None else other.rows_share,
            self.latency_ms if self.latency_ms is not None else other.latency_ms,
        )


CAUTIOUS = Limits(replicas_down=1, rows_share=0.5, latency_ms=2000.0)
"""Of every target but the embedded one, where its file says nothing."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class AbortIf:
    """One condition that ends a trial. Exactly one of the four kinds is named."""

    sli_below: _Share | None = None
    """Share of good readings over the last ``for_s``."""
    for_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    error_budget_spent: _Positive | None = None
    """Share of the error budget of ``of_days`` that the campaign may spend."""
    of_days: _Positive | None = None
    health_url: _Url | None = None
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    prometheus: _Url | None = None
    """Address of a server that speaks Prometheus' HTTP API."""
    query: Annotated[str, Field(min_length=1)] | None = None
    above: _Finite | None = None
    below: _Finite | None = None
    headers: Mapping[str, str] | None = None
    """Sent to the server that is asked; see Predict.headers."""

    @property
    def words(self) -> str:
        """For a person. Of an address, what may be shown."""
        open_keys = [key for key in self.__slots__ if key != "headers"]
        given = {key: getattr(self, key) for key in open_keys if getattr(self, key) is not None}
        return ", ".join(
            f"{key} {shown(value) if key in ('health_url', 'prometheus') else value}"
            for key, value in given.items()
        )

    def problem(self) -> tuple[str, str] | None:
        """What the types cannot say: ``(key, words)``, or None if it makes sense."""
        given = {key for key in self.__slots__ if getattr(self, key) is not None}
        kinds = [kind for kind in _GOES_WITH if kind in given]
        if len(kinds) != 1:
            return (kinds or [""])[-1], f"name exactly one of {', '.join(_GOES_WITH)}"
        (kind,) = kinds
        stray = sorted(given - {kind, *_GOES_WITH[kind]})
        if stray:
            return stray[0], f"says nothing beside {kind}"
        if kind == "sli_below" and self.for_s is None:
            return kind, "for_s is missing: over how long the readings are looked at"
        if kind == "prometheus" and self.query is None:
            return kind, "query is missing"
        if kind == "prometheus" and (self.above is None) == (self.below is None):
            return kind, "name either above or below: where the query's value may not be"
        return None


def shown(url: str) -> str:
    """An address as a report may show it: a name, a password or a query may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


_GOES_WITH: Mapping[str, tuple[str, ...]] = {
    "sli_below": ("for_s",),
    "error_budget_spent": ("of_days",),
    "health_url": ("status", "headers"),
    "prometheus": ("query", "above", "below", "headers"),
}
