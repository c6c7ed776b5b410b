"""A fault for a service that answers 503 as long as a switch file exists."""

from __future__ import annotations

import http.client
from pathlib import Path
from urllib.parse import urlsplit

from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import Injection, current, inject
from monkeyproof.plugins import undo
from monkeyproof.targets.port import Target
from monkeyproof.types import Evidence, Json
from monkeyproof.undo.log import Undo

__all__ = ["maintenance", "switch_back"]


@fault(evidence="the service answers 503", undo="removes the switch file", healing="whatever removes the file")
def maintenance(switch: str) -> dict[str, Json]:
    """Switch a service to maintenance, in which it answers every request with 503."""
    file = Path(switch).resolve()
    url = current().target.file.predict.url
    return inject(
        Injection(
            fault="sample.maintenance",
            subject=file.name,
            parameters={"switch": str(file)},
            apply=lambda: file.write_text("maintenance\n"),
            evidence=lambda _: _unavailable(url),
            undo=Undo("sample_chaos.faults:switch_back", {"switch": str(file)}),
            prior={"exists": file.exists()},
        )
    )


@undo
def switch_back(target: Target, switch: str) -> str:  # noqa: ARG001
    """Remove the switch file. Idempotent."""
    file = Path(switch)
    if not file.exists():
        return f"{file.name} was removed already"
    file.unlink()
    return f"{file.name} is removed"


def remove_anything(target: Target, switch: str) -> str:  # noqa: ARG001
    """Not an undo: an undo log that names it is refused."""
    Path(switch).unlink()
    return "removed"


def _unavailable(url: str) -> Evidence | None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=1)
    try:
        connection.request("POST", parts.path, '{"x": 1}', {"Content-Type": "application/json"})
        status = connection.getresponse().status
    finally:
        connection.close()
    return Evidence(f"{parts.path} answers {status}", {"status": status}) if status == 503 else None
