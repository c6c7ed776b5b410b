"""Campaigns and trials, computed anew from the histories in their folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from pathlib import Path

from pydantic import TypeAdapter

from monkeyproof.campaign.plan import CAMPAIGN_FILE, TRIALS_DIR, summary_of
from monkeyproof.config.target_file import Slo
from monkeyproof.errors import UsageError
from monkeyproof.probes.recovery.measurement import measure, remedies_done
from monkeyproof.probes.recovery.schedules import is_fault_schedule, measure_schedule
from monkeyproof.record import history
from monkeyproof.record.history import Event, History, Kind
from monkeyproof.record.readings import Readings
from monkeyproof.types import Campaign, Json, Outcome, Recovery, TrialResult

HEADER = ("name", "started_utc", "duration_s", "target", "seed", "slo", "prober", "machine", "versions")
"""The keys that campaign.json must have; the rest of a campaign is computed from its trials."""
CUT_OFF = "its history has no end: it is still running, or was killed"


def read_campaign(folder: Path) -> Campaign:
    """A campaign from the histories in its folder; a folder of one trial is a campaign of one.

    Raises:
        UsageError: the folder holds neither.
    """
    if (folder / history.TRIAL_FILE).exists():
        return _campaign_of_one(folder)
    header = read_header(folder)
    folders = sorted(path.parent for path in (folder / TRIALS_DIR).glob(f"*/{history.TRIAL_FILE}"))
    return campaign_of(header, [result_of(trial, folder) for trial in folders])


def read_header(folder: Path) -> dict[str, Json]:
    """The content of campaign.json.

    Raises:
        UsageError: there is none, or it cannot be understood.
    """
    try:
        header = json.loads((folder / CAMPAIGN_FILE).read_bytes())
    except FileNotFoundError:
        raise UsageError(f"{folder}: no {CAMPAIGN_FILE} in it, so this is not a campaign's folder") from None
    except ValueError as error:
        raise UsageError(f"{folder / CAMPAIGN_FILE}: damaged: {error}") from None
    if not isinstance(header, dict) or header.get("version") != 1:
        raise UsageError(f"{folder / CAMPAIGN_FILE}: not a campaign of a version that this monkeyproof reads")
    missing = [name for name in HEADER if name not in header]
    if missing:
        raise UsageError(f"{folder / CAMPAIGN_FILE}: damaged: {missing[0]} is missing")
    return header


def campaign_of(header: Mapping[str, Json], trials: Iterable[TrialResult]) -> Campaign:
    """A campaign from its header and its trials."""
    return Campaign(
        name=header["name"],
        started_utc=header["started_utc"],
        duration_s=header["duration_s"] or 0.0,
        target=header["target"],
        seed=header["seed"],
        slo=header["slo"],
        prober=header["prober"],
        machine=header["machine"],
        versions=header["versions"],
        trials=tuple(trials),
        plan=summary_of(header.get("plan", {})),
        aborted=header.get("aborted", ""),
        calibration=header.get("calibration", {}),
    )


def _campaign_of_one(folder: Path) -> Campaign:
    history_of_one = History.read(folder)
    trial = history_of_one.trial
    result = result_of(folder, folder)
    return Campaign(
        name=folder.name,
        started_utc=trial["anchor"]["utc"],
        duration_s=max((event.t_s for event in history_of_one.events), default=0.0),
        target=trial["target_name"],
        seed=trial["seed"],
        slo=trial["slo"],
        prober=trial["prober"],
        machine=trial["machine"],
        versions=trial["versions"],
        trials=(result,),
        aborted=result.aborted,
    )


def is_finished(folder: Path) -> bool:
    """Whether a trial ended in order, with everything reverted. False, too, where its history is damaged."""
    try:
        trial = History.read(folder)
    except UsageError:
        return False
    ended = [event.data.get("status") for event in trial.of_kind(Kind.TRIAL_ENDED)]
    return ended == ["closed"] and not trial.of_kind(Kind.TRIAL_ABORTED)


def result_of(folder: Path, root: Path) -> TrialResult:
    """One trial's result, computed from its history alone.

    Args:
        folder: The trial's.
        root: The campaign's, to which ``TrialResult.folder`` is relative.

    Raises:
        UsageError: the folder holds no trial.
    """
    history_of_one = History.read(folder)
    header, events = history_of_one.trial, history_of_one.events
    aborted = _aborted(history_of_one)
    recovery = _recovery(history_of_one, aborted)
    before_s = recovery.proven_s or recovery.reverted_s or inf
    done = remedies_done(events, recovery.t0_s or 0.0, before_s)
    sham, benign = bool(header.get("sham", False)), bool(header.get("benign", False))
    harmless = sham or (benign and recovery.outcome is Outcome.ABSORBED)
    healed = recovery.outcome in (Outcome.HEALED, Outcome.ABSORBED) and not harmless
    intended, proven = history_of_one.of_kind(Kind.FAULT_INTENDED), history_of_one.of_kind(Kind.FAULT_EFFECTIVE)
    acting = history_of_one.of_kind(Kind.HEALER_ACTING)
    return TrialResult(
        experiment=header["experiment"],
        title=header["title"],
        arm=header["arm"],
        seed=header["seed"],
        index=header["index"],
        folder=os.path.relpath(folder, root),
        target=header["target_name"],
        started_utc=header["anchor"]["utc"],
        recovery=recovery,
        faults=_unique(f"{event.data['fault']} on {event.subject}" for event in intended),
        evidence=_unique(str(event.data["summary"]) for event in proven),
        healed_by=done if healed else (),
        detected=_summaries(history_of_one, Kind.HEALER_DETECTED, Kind.HEALER_DIAGNOSED),
        escalations=_summaries(history_of_one, Kind.HEALER_ESCALATED),
        not_reverted=_not_reverted(history_of_one),
        expected=tuple(Outcome(name) for name in header.get("expected", ())),
        load=_load(folder),
        sham=sham,
        benign=benign,
        false_heals=_unique(_remedy(event) for event in acting) if harmless else (),
        aborted=aborted,
        storm=is_fault_schedule(events),
    )


def _summaries(trial: History, *kinds: Kind) -> tuple[str, ...]:
    return _unique(str(event.data.get("summary", "")) for event in trial.of_kind(*kinds))


def _aborted(trial: History) -> str:
    found = trial.first(Kind.TRIAL_ABORTED)
    if found is not None:
        return str(found.data.get("why", "")) or "it was aborted"
    return "" if trial.first(Kind.TRIAL_ENDED) else CUT_OFF


def _not_reverted(trial: History) -> tuple[str, ...]:
    """What could not be reverted. A fault that a second try reverted is not among it."""
    residue = [f"{event.data['what']} ({event.data['mend']})" for event in trial.of_kind(Kind.RESIDUE_FOUND)]
    reverted = {event.data["id"]: event.t_s for event in trial.of_kind(Kind.FAULT_REVERTED)}
    failed = [
        f"{event.data['fault']} on {event.subject}: {event.data['why']} (run 'monkeyproof revert')"
        for event in trial.of_kind(Kind.FAULT_NOT_REVERTED)
        if reverted.get(event.data["id"], -inf) < event.t_s
    ]
    return _unique([*failed, *residue])


def _remedy(event: Event) -> str:
    return str(event.data.get("remedy") or event.data.get("summary") or "an action without a name")


def _recovery(trial: History, aborted: str) -> Recovery:
    slo = TypeAdapter(Slo).validate_python(trial.trial["slo"])
    try:
        readings = Readings.read(trial.folder / history.READINGS_FILE)
    except UsageError as error:
        return Recovery(Outcome.INVALID, f"could not tell: {error}")
    found = (measure_schedule if is_fault_schedule(trial.events) else measure)(readings, trial.events, slo)
    if aborted == CUT_OFF and found.outcome is Outcome.ABSORBED:
        # No answer was bad until its worker was killed; nothing is known of the time after.
        return replace(found, outcome=Outcome.INVALID, reason=f"could not tell: {aborted}")
    return found


def _load(folder: Path) -> dict[str, object]:
    try:
        return dict(json.loads((folder / history.LOAD_FILE).read_bytes()))
    except (OSError, ValueError):
        return {}


def _unique(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in words if word))
