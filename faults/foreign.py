"""Faults that plain Chaos Toolkit activities inject: whether one did what it was to do, and taking it back.

Chaos Toolkit calls an activity succeeded if it raised nothing, also where a process ended with status 1 or a
server answered 500. What counts here is its own tolerance; without one, a process has to end with 0 and a server
to answer below 400.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from monkeyproof.errors import TargetError, UsageError
from monkeyproof.roles import activity_named
from monkeyproof.targets.port import Target
from monkeyproof.types import Json

__all__ = ["run_activities"]


def why_not_done(
    activity: Mapping[str, Json], output: Json, configuration: Json = None, secrets: Json = None
) -> str:
    """Why an activity that ran did not do what it was to do. Empty if it did."""
    if "tolerance" in activity:
        from chaoslib.hypothesis import within_tolerance

        if within_tolerance(activity["tolerance"], output, configuration, secrets):
            return ""
        return f"{told(output)} is not within its tolerance, {short(activity['tolerance'])}"
    kind = activity["provider"]["type"]
    if kind == "process" and output["status"] != 0:
        said = (output["stderr"] or output["stdout"]).strip().splitlines()
        return f"it ended with status {output['status']}" + (f": {said[-1][:200]}" if said else "")
    if kind == "http" and output["status"] >= 400:
        return f"HTTP {output['status']}: {short(output['body'])}"
    return ""


def why_no_evidence(
    activity: Mapping[str, Json], output: Json, configuration: Json = None, secrets: Json = None
) -> str:
    """Why a probe's value proves nothing. Without a tolerance, what a function returns has to be true."""
    if "tolerance" not in activity and activity["provider"]["type"] == "python" and not output:
        return f"it returned {short(output)}"
    return why_not_done(activity, output, configuration, secrets)


def short(value: Json) -> str:
    """A value on one line, for a person."""
    words = value if isinstance(value, str) else json.dumps(value, default=str)
    words = " ".join(words.split())
    return words if len(words) <= 120 else f"{words[:117]}..."


def told(output: Json) -> str:
    """What a report says of a probe's value. Of an answer, its status and body: headers may hold secrets."""
    if isinstance(output, dict) and "status" in output:
        words = short(output.get("body") or output.get("stdout") or "")
        return f"{output['status']}: {words}" if words else str(output["status"])
    return short(output)


def run_activities(target: Target, experiment: str, activities: list[str], folder: str) -> str:  # noqa: ARG001
    """Run activities of an experiment again, as Chaos Toolkit would: the undo of somebody else's fault.

    Configuration and secrets are loaded anew, so none stands in the undo log.

    Args:
        experiment: path of the experiment as it was run, in JSON.
        activities: names, in order.
        folder: where relative paths begin.

    Raises:
        UsageError: the experiment is gone.
        TargetError: one of them did not do what it was to do.
    """
    from chaoslib.activity import run_activity
    from chaoslib.configuration import load_configuration, load_dynamic_configuration
    from chaoslib.exceptions import ChaosException
    from chaoslib.secret import load_secrets

    try:
        document = json.loads(Path(experiment).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{experiment}: cannot be read ({error}), so what undoes the fault is not known"
        ) from None
    configuration = load_configuration(document.get("configuration") or {})
    secrets = load_secrets(document.get("secrets") or {}, configuration)
    configuration = load_dynamic_configuration(configuration, secrets)
    with contextlib.chdir(folder):
        for name in activities:
            activity = activity_named(document, name)
            if activity is None:
                raise UsageError(f"{experiment}: no activity {name!r} in it")
            try:
                why = why_not_done(
                    activity, run_activity(activity, configuration, secrets), configuration, secrets
                )
            except ChaosException as error:
                why = str(error)
            if why:
                raise TargetError(f"{name}: {why}")
    return f"ran {', '.join(activities)}"
