"""Faults that plain Chaos Toolkit activities inject: checks whether an activity succeeded, and runs its undo.

To Chaos Toolkit an activity has succeeded if it raised nothing, also where a process ended with status 1 or a
server answered 500. What counts here is the activity's own tolerance; without one, a process has to end with 0 and
a server has to answer below 400.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from monkeyproof.config.redaction import redact_text, register_experiment_secrets, register_loaded_secrets
from monkeyproof.config.user_files import load_yaml, read_text
from monkeyproof.errors import TargetError, UsageError
from monkeyproof.experiment.activity_roles import ActivityRoles, activity_named, every_activity
from monkeyproof.targets.port import Target
from monkeyproof.types import Json

__all__ = ["run_activities"]

EVIDENCE_WITHIN_S = 5.0
UNDO_WITHIN_S = 60.0
ANSWER_WITHIN_S = 60.0


def set_limits(document: Mapping[str, Json], roles: ActivityRoles) -> None:
    """Give activities that may wait for ever a ``timeout``, where their author gave none.

    A service that the fault has just hung never answers, and Chaos Toolkit would wait for it with the fault in
    place. How long a process may inject is for its author to decide: it may be meant to last.
    """
    limits = {roles.evidence: EVIDENCE_WITHIN_S} | dict.fromkeys(roles.undo, UNDO_WITHIN_S)
    for activity in every_activity(document):
        provider = activity.get("provider", {})
        default_s = ANSWER_WITHIN_S if provider.get("type") == "http" else None
        limit_s = limits.get(str(activity.get("name")), default_s)
        if provider.get("type") in ("http", "process") and limit_s is not None:
            provider.setdefault("timeout", limit_s)


def why_not_done(
    activity: Mapping[str, Json], output: Json, configuration: Json = None, secrets: Json = None
) -> str:
    """Why an activity that ran did not succeed. "" if it did."""
    if "tolerance" in activity:
        from chaoslib.hypothesis import within_tolerance

        if within_tolerance(activity["tolerance"], output, configuration, secrets):
            return ""
        return f"{result_text(output)} is not within its tolerance, {short(activity['tolerance'])}"
    kind = activity["provider"]["type"]
    if kind == "process" and output["status"] != 0:
        lines = redact_text(output["stderr"] or output["stdout"]).strip().splitlines()
        return f"it ended with status {output['status']}" + (f": {lines[-1][:200]}" if lines else "")
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
    """A value on one line, without secrets. It redacts before it cuts: half a secret is not recognised."""
    words = value if isinstance(value, str) else json.dumps(value, default=str)
    words = " ".join(redact_text(words).split())
    return words if len(words) <= 120 else f"{words[:117]}..."


def result_text(output: Json) -> str:
    """A probe's value in a report. Of an answer, its status and body: headers may hold secrets."""
    if isinstance(output, dict) and "status" in output:
        words = short(output.get("body") or output.get("stdout") or "")
        return f"{output['status']}: {words}" if words else str(output["status"])
    return short(output)


def run_activities(
    target: Target,  # noqa: ARG001
    experiment: str,
    activities: list[str],
    folder: str,
    file: str = "",
    sha256: str = "",
) -> str:
    """Run activities of an experiment, as Chaos Toolkit would: the undo of an external activity's fault.

    It loads configuration and secrets again, so that the undo log holds none.

    Args:
        experiment: path of the experiment as it was run, in JSON, without its secrets.
        activities: names, in order.
        folder: where relative paths begin.
        file: where the experiment was read from, if it needs values that are not in that copy; sha256: its digest.

    Raises:
        UsageError: the experiment is missing, or has changed.
        TargetError: one of them did not succeed.
    """
    from chaoslib.activity import run_activity
    from chaoslib.configuration import load_configuration, load_dynamic_configuration
    from chaoslib.exceptions import ChaosException
    from chaoslib.secret import load_secrets

    document = _as_it_was(file, sha256) if file else _copy_of(experiment)
    register_experiment_secrets(document)
    configuration = load_configuration(document.get("configuration") or {})
    secrets = load_secrets(document.get("secrets") or {}, configuration)
    configuration = load_dynamic_configuration(configuration, secrets)
    register_loaded_secrets(configuration, secrets)
    # Where that folder is missing, relative paths fail, and the error says so; the rest works all the same.
    with contextlib.chdir(folder if Path(folder).is_dir() else "/"):
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
                raise TargetError(redact_text(f"{name}: {why}"))
    return f"ran {', '.join(activities)}"


def _copy_of(experiment: str) -> dict[str, Json]:
    try:
        found: dict[str, Json] = json.loads(Path(experiment).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{experiment}: cannot be read ({error}), so what undoes the fault is not known"
        ) from None
    return found


def _as_it_was(file: str, sha256: str) -> dict[str, Json]:
    text = read_text(Path(file))
    if hashlib.sha256(text.encode()).hexdigest() != sha256:
        raise UsageError(
            f"{file}: has changed since the fault was injected, and the undo needs values that stand only there; "
            "restore the file as it was"
        )
    found: dict[str, Json] = load_yaml(text, file)[1]
    return found


def activity_summary(activity: Mapping[str, Json]) -> dict[str, Json]:
    """An activity in a report. Its arguments and headers may hold secrets, so they are left out."""
    provider = activity.get("provider", {})
    words = {key: provider[key] for key in ("type", "path", "url", "module", "func") if key in provider}
    if "url" in words:
        words["url"] = str(words["url"]).partition("?")[0]
    return {"activity": activity.get("name", ""), **words}
