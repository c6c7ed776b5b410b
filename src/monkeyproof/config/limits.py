"""The bounds that a target file sets: how far a fault may go, and which conditions abort a trial."""

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

BUDGET_DAYS = 30.0
"""The default period of an error budget."""
HEALTHY_STATUS = 200
"""The default status that ``health_url`` has to answer with."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Limits:
    """How far a fault may go. None: no limit."""

    replicas_down: Annotated[int, Field(ge=1)] | None = None
    """Replicas (in Kubernetes: pods) that are down at the same time, whatever took them down."""
    rows_share: _Share | None = None
    """Share of rows in which at least one value is corrupted."""
    latency_ms: _Positive | None = None
    """The longest delay of one request."""

    def or_else(self, other: Limits) -> Limits:
        """These limits, with those of another where these are None."""
        return Limits(
            self.replicas_down if self.replicas_down is not None else other.replicas_down,
            self.rows_share if self.rows_share is not None else other.rows_share,
            self.latency_ms if self.latency_ms is not None else other.latency_ms,
        )


CAUTIOUS = Limits(replicas_down=1, rows_share=0.5, latency_ms=2000.0)
"""The default limits of every target but the embedded one."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class AbortIf:
    """One condition that aborts a trial. Exactly one of the four kinds is named."""

    sli_below: _Share | None = None
    """Share of good readings over the last ``for_s``."""
    for_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] | None = None
    error_budget_spent: _Positive | None = None
    """Share of the error budget of ``of_days`` that the campaign may spend."""
    of_days: _Positive | None = None
    health_url: _Url | None = None
    status: Annotated[int, Field(ge=100, le=599)] | None = None
    prometheus: _Url | None = None
    """Address of a server with the HTTP API of Prometheus."""
    query: Annotated[str, Field(min_length=1)] | None = None
    above: _Finite | None = None
    below: _Finite | None = None
    headers: Mapping[str, str] | None = None
    """Sent with each request to the server; see Predict.headers."""

    @property
    def words(self) -> str:
        """The condition for people, without the secrets of an address."""
        open_keys = [key for key in self.__slots__ if key != "headers"]
        given = {key: getattr(self, key) for key in open_keys if getattr(self, key) is not None}
        return ", ".join(
            f"{key} {public_url(value) if key in ('health_url', 'prometheus') else value}"
            for key, value in given.items()
        )

    def problem(self) -> tuple[str, str] | None:
        """A contradiction that the types cannot exclude, as ``(key, message)``; None if there is none."""
        given = {key for key in self.__slots__ if getattr(self, key) is not None}
        kinds = [kind for kind in _GOES_WITH if kind in given]
        if len(kinds) != 1:
            return (kinds or [""])[-1], f"name exactly one of {', '.join(_GOES_WITH)}"
        (kind,) = kinds
        stray = sorted(given - {kind, *_GOES_WITH[kind]})
        if stray:
            return stray[0], f"has no meaning beside {kind}"
        if kind == "sli_below" and self.for_s is None:
            return kind, "for_s is missing: the period of the readings, in seconds"
        if kind == "prometheus" and self.query is None:
            return kind, "query is missing"
        if kind == "prometheus" and (self.above is None) == (self.below is None):
            return kind, "name either above or below: the bound that the query's value must not cross"
        return None


def public_url(url: str) -> str:
    """An address without user, password and query, which may be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


_GOES_WITH: Mapping[str, tuple[str, ...]] = {
    "sli_below": ("for_s",),
    "error_budget_spent": ("of_days",),
    "health_url": ("status", "headers"),
    "prometheus": ("query", "above", "below", "headers"),
}
