"""What a healer may see of a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from monkeyproof.targets.port.models import Registry


@runtime_checkable
class Telemetry(Protocol):
    """What a healer may see: the target's own dashboards, never the harness's plan."""

    def metrics_urls(self) -> Mapping[str, str]:
        """Name of each part (``replica-1``, ``pipeline``) to its Prometheus endpoint."""

    def canary(self) -> Path:
        """The healer's own golden set (same format as the prober's, other entities)."""

    def canary_url(self) -> str:
        """Where to ask for predictions, as a user would."""

    def healer_registry(self) -> Registry:
        """The registry over the healer's own link, which a fault can break."""
