"""Campaigns without processes: a runner of trials that writes histories such as a worker leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from monkeyproof.campaign.plan import CampaignPlan
from monkeyproof.campaign.runner import ProgressListener
from monkeyproof.clock import Anchor, Clock, ManualClock
from monkeyproof.config.target_file import TargetFile, read_target_file
from monkeyproof.errors import EXIT_OK
from monkeyproof.experiment import catalogue
from monkeyproof.record import history
from monkeyproof.record.history import HistoryWriter, Kind
from monkeyproof.record.readings import Reading, ReadingsWriter, SignalState
from monkeyproof.trial.plan import TrialPlan

RATE_PER_S = 20.0
T0_S, REVERTED_S, END_S = 1.0, 4.0, 6.0
TARGET = """\
name: {name}
predict: {{url: "http://127.0.0.1:{port}/invocations", golden: golden.jsonl}}
slo:
  objective: 0.9
  stable_for_s: 0.5
  recovery: {{within_s: 1, share: 0.5, confidence: 0.8}}
{more}
"""


def target_file(folder: Path, *, name: str = "t", port: int = 9, more: str = "", slo: str = "") -> TargetFile:
    path = folder / "target.yaml"
    (folder / "golden.jsonl").write_text('{"body": {}, "expect": 1}\n')
    text = TARGET.format(name=name, port=port, more=more)
    path.write_text(text.replace("  objective: 0.9\n", f"  objective: 0.9\n{slo}"))
    return read_target_file(path)


def plan_of(folder: Path, target: TargetFile, *names: str, arms: str = "none", **more: object) -> CampaignPlan:
    experiments = tuple(catalogue.find(name) for name in names or ("latency-spike",))
    sham = catalogue.find("sham") if more.get("shams_count") else None
    values = {"trials_count": 2, "seed": 1, "sham": sham} | more
    return CampaignPlan(experiments, tuple(arms.split(",")), target=target, folder=folder, **values)  # type: ignore[arg-type]


@dataclass
class FakeRunner:
    """Writes the history of each trial it is given, and remembers which these were."""

    target: TargetFile
    broken: Callable[[TrialPlan], bool] = lambda _: False
    """Whether the users of this trial get no right answer until the fault is removed."""
    unproven: Callable[[TrialPlan], bool] = lambda _: False
    """Whether nothing is named that would prove its fault."""
    dies_in: int = 0
    """The how-manieth trial kills the whole campaign, half done."""
    minutes: float = 0.0
    """What a trial takes, on a clock that can be moved."""
    ran: list[TrialPlan] = field(default_factory=list)

    def __call__(
        self,
        trial: TrialPlan,
        watcher: ProgressListener,  # noqa: ARG002
        stop: list[int],  # noqa: ARG002
        clock: Clock,
    ) -> tuple[int, str]:
        self.ran.append(trial)
        clock.sleep_s(60 * self.minutes)
        dies = len(self.ran) == self.dies_in
        unproven = self.unproven(trial)
        write_trial(trial, self.target, broken=self.broken(trial), half_done=dies, unproven=unproven)
        if dies:
            raise Killed
        return EXIT_OK, ""

    @property
    def names(self) -> list[str]:
        return [Path(trial.folder).name for trial in self.ran]


class Killed(BaseException):
    """The end of the campaign's process, as far as its folder can tell."""


def write_trial(
    trial: TrialPlan,
    target: TargetFile,
    *,
    broken: bool = False,
    half_done: bool = False,
    not_reverted: str = "",
    acted: str = "",
    unproven: bool = False,
) -> Path:
    """One trial's folder: answers are right all along, or gone from the fault until its removal."""
    folder = Path(trial.folder)
    folder.mkdir(parents=True)
    anchor = Anchor(0.0, "2026-02-03T04:05:06.000+00:00")
    said = {"target_name": target.name, "slo": asdict(target.slo), "prober": asdict(target.prober)}
    said |= {"machine": {"cores": 2}, "versions": {"monkeyproof": "0"}, "anchor": asdict(anchor)}
    history.write_json(folder / history.TRIAL_FILE, {"version": 1, **asdict(trial), **said})
    writer = HistoryWriter(folder, anchor, "trial", ManualClock())
    fault = {"id": "1", "fault": "network.add_latency"}
    writer.event(Kind.TRIAL_STARTED, t_s=0.0, title=trial.title)
    writer.event(Kind.BASELINE_MET, t_s=0.9, good_share=1.0, window_s=0.9)
    writer.event(Kind.FAULT_INTENDED, "link", t_s=T0_S, parameters={}, held=True, **fault)
    if unproven:
        writer.event(Kind.FAULT_INJECTED, "link", t_s=T0_S + 0.05, **fault)
    else:
        writer.event(Kind.FAULT_EFFECTIVE, "link", t_s=T0_S + 0.05, summary="slow", evidence={}, **fault)
    writer.event(Kind.PHASE_STARTED, "hold", t_s=T0_S + 0.1)
    if acted:
        writer.event(Kind.HEALER_ACTING, "", t_s=T0_S + 0.5, remedy=acted, summary=acted)
    if not half_done:
        writer.event(Kind.PHASE_ENDED, "hold", t_s=REVERTED_S - 0.1)
        writer.event(Kind.PHASE_STARTED, "revert", t_s=REVERTED_S - 0.1)
        if not_reverted:
            writer.event(Kind.FAULT_NOT_REVERTED, "link", t_s=REVERTED_S, why=not_reverted, **fault)
        else:
            writer.event(Kind.FAULT_REVERTED, "link", t_s=REVERTED_S, summary="reverted", **fault)
        writer.event(Kind.PHASE_ENDED, "revert", t_s=REVERTED_S)
        writer.event(Kind.TRIAL_ENDED, t_s=END_S, status="not reverted" if not_reverted else "closed")
    writer.close()
    readings = ReadingsWriter(folder / history.READINGS_FILE)
    readings.write(
        [_reading(slot, broken=broken) for slot in range(int((2 if half_done else END_S) * RATE_PER_S))]
    )
    readings.close()
    return folder


def _reading(slot: int, *, broken: bool) -> Reading:
    at_s = slot / RATE_PER_S
    right = SignalState.BAD if broken and T0_S <= at_s < REVERTED_S else SignalState.GOOD
    return Reading(slot, at_s, at_s, at_s + 0.004, SignalState.GOOD, SignalState.GOOD, right, status=200)
