"""The folder of a campaign that runs: its header ``campaign.json``, and the results of its trials so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from monkeyproof.campaign.leftovers import keep_finished
from monkeyproof.campaign.plan import CAMPAIGN_FILE, TRIALS_DIR, CampaignPlan
from monkeyproof.campaign.results import campaign_of, read_campaign, read_header, result_of
from monkeyproof.campaign.worker import no_room
from monkeyproof.clock import Clock
from monkeyproof.paths import make_private
from monkeyproof.record import history
from monkeyproof.reports.model.report import Report, build
from monkeyproof.trial.plan import TrialPlan, machine, versions
from monkeyproof.types import Campaign, Json, TrialResult

NOT_ENDED = "it has not ended: it is still running, or was killed; 'monkeyproof run --resume' continues it"


class RunningCampaign:
    """Keeps what is on disk and what is known of a campaign's trials alike."""

    def __init__(self, plan: CampaignPlan, header: dict[str, Json], results: dict[str, TrialResult]) -> None:
        self._folder = plan.folder
        self._header = header
        self._results = results
        """By the trial's folder."""
        self._before_s = header["duration_s"] or 0.0
        """The time that earlier sittings took."""

    @classmethod
    def new(cls, plan: CampaignPlan, clock: Clock) -> RunningCampaign:
        """Begin a campaign in an empty folder.

        Raises:
            Refusal: the folder cannot be written, so nothing would be on record.
        """
        campaign = cls(plan, _header(plan, clock), {})
        try:
            make_private(plan.folder)
            (plan.folder / TRIALS_DIR).mkdir(mode=0o700)
        except OSError as error:
            raise no_room(plan.folder, error) from None
        campaign._write_open()
        return campaign

    @classmethod
    def resumed(cls, plan: CampaignPlan, trials: Sequence[TrialPlan]) -> RunningCampaign:
        """Continue a campaign: finished trials are kept, a half-done one moves out of the way.

        Raises:
            Refusal: the folder cannot be written, or a worker of the interrupted campaign still runs.
        """
        header = read_header(plan.folder) | {"plan": plan.as_json()}
        finished = keep_finished(plan.folder, trials)
        results = {trial.folder: result_of(Path(trial.folder), plan.folder) for trial in finished}
        campaign = cls(plan, header, results)
        campaign._write_open()
        return campaign

    def __len__(self) -> int:
        """The number of trials that have a result."""
        return len(self._results)

    def has(self, trial: TrialPlan) -> bool:
        """Whether the trial has a result."""
        return trial.folder in self._results

    def add(self, trial: TrialPlan) -> TrialResult | None:
        """Compute the result of a trial that ended; None if it left no history."""
        if not (Path(trial.folder) / history.TRIAL_FILE).exists():
            return None
        result = self._results[trial.folder] = result_of(Path(trial.folder), self._folder)
        return result

    def report(self) -> Report:
        """The report on the trials so far, as if the campaign ended here in order."""
        return build(campaign_of(self._header | {"aborted": ""}, self._results.values()), self._folder)

    def close(self, sitting_s: float, *, aborted: str, ended_early: str) -> OSError | None:
        """Write how the campaign ended. Returns why that cannot be written; the folder then says "not ended"."""
        duration_s = round(self._before_s + sitting_s, 3)
        self._header |= {"duration_s": duration_s, "aborted": aborted, "ended_early": ended_early}
        try:
            history.write_json(self._folder / CAMPAIGN_FILE, self._header)
        except OSError as error:
            return error
        return None

    def campaign(self) -> Campaign:
        """The campaign as its folder holds it."""
        return read_campaign(self._folder)

    def _write_open(self) -> None:
        self._header |= {"duration_s": None, "aborted": NOT_ENDED, "ended_early": ""}
        try:
            history.write_json(self._folder / CAMPAIGN_FILE, self._header)
        except OSError as error:
            raise no_room(self._folder, error) from None


def _header(plan: CampaignPlan, clock: Clock) -> dict[str, Json]:
    from monkeyproof.probes.calibration.calibrate import stored

    return {
        "version": 1,
        "name": plan.folder.name,
        "started_utc": clock.utc().isoformat(timespec="seconds"),
        "duration_s": None,
        "target": plan.target.name,
        "seed": plan.seed,
        "slo": asdict(plan.target.slo),
        "prober": asdict(plan.target.prober),
        "machine": machine(),
        "versions": versions(),
        "plan": plan.as_json(),
        "calibration": stored(),
    }
