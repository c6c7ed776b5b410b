"""Five experiments, two arms, five seeds: plans of trials such as the embedded target gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from samples import HORIZON_S, Fault, Plan, action, campaign_of, detected, diagnosed, write_trial

from monkeyproof.record.history import Kind
from monkeyproof.types import Campaign, Outcome, TrialResult

HEALED, SELF, REMOVED, NOT = (
    Outcome.HEALED,
    Outcome.SELF_RECOVERED,
    Outcome.FAULT_REMOVED,
    Outcome.NOT_RECOVERED,
)


def make_campaign(folder: Path, seeds: int = 5) -> Campaign:
    """Write the histories of a whole campaign into ``folder``."""
    makers = (corrupt_records, latency_spike, replica_kill, broken_rollback, feature_store_outage)
    trials: list[TrialResult] = []
    for maker in makers:
        for arm in ("elephant", "none"):
            for seed in range(1, seeds + 1):
                trials.append(write_trial(folder, maker(arm, seed), seed, len(trials)))
    return campaign_of(trials)


def corrupt_records(arm: str, seed: int) -> Plan:
    plan = Plan(
        "corrupt-records",
        "One record in ten reaches the feature store with scaled values",
        arm,
        REMOVED,
        [
            Fault(
                "data.corrupt", "source->pipeline", "148 of 1,480 records changed on their way", proof_delay_s=0.45
            )
        ],
        bad_share=0.12,
        impact_s=1.1,
        recovered_s=HORIZON_S + 3.2,
        expected=(HEALED,) if arm == "elephant" else (),
    )
    if arm == "none":
        return plan
    at_s = 2.0 + _jitter(seed)
    return replace(
        plan,
        outcome=HEALED,
        recovered_s=at_s + 2.3,
        healed_by=("quarantine_and_restore",),
        steps=[
            detected(at_s, "stray_records", "pipeline", "feature 3: robust z 41.2 against a threshold of 6"),
            detected(at_s + 0.21, "canary_accuracy", "", "0.88 against a threshold of 0.97"),
            diagnosed(at_s + 0.25, "data_corrupted", "pipeline", "records stray and answers are wrong"),
            *action(
                at_s + 0.3,
                1.4,
                "quarantine_and_restore",
                "pipeline",
                "snapshot good-7 restored, 3 batches kept out",
            ),
            (at_s + 4.2, Kind.HEALER_RESOLVED, "", {"summary": "canary accuracy 1.00 for 1.5 s"}),
        ],
    )


def latency_spike(arm: str, seed: int) -> Plan:
    plan = Plan(
        "latency-spike",
        "One replica answers 0.5 to 2 s late",
        arm,
        REMOVED,
        [Fault("network.add_latency", "gateway->replica-2", "31 requests were delayed, 1,214 ms on average")],
        trouble="late",
        bad_share=0.34,
        impact_s=0.3,
        recovered_s=HORIZON_S + 0.1,
    )
    if arm == "none":
        return plan
    at_s = 0.9 + _jitter(seed)
    return replace(
        plan,
        outcome=HEALED,
        recovered_s=at_s + 0.6,
        healed_by=("drain",),
        steps=[
            detected(at_s, "replica_slow", "replica-2", "p90 1,412 ms against a threshold of 250 ms"),
            diagnosed(at_s + 0.02, "replica_slow", "replica-2", "only this replica is slow"),
            *action(at_s + 0.05, 0.2, "drain", "replica-2", "the gateway sends it nothing any more"),
            (at_s + 1.9, Kind.HEALER_RESOLVED, "", {"summary": "p99 14 ms for 1.5 s"}),
        ],
    )


def replica_kill(arm: str, seed: int) -> Plan:
    fault = Fault("replicas.kill", "replica-1", "pid 4711 is gone", held=False, proof_delay_s=0.03)
    plan = Plan("replica-kill", "One replica dies of SIGKILL", arm, SELF, [fault], "refused", 0.4, 0.02, 0.62)
    if seed % 5 == 3:
        return replace(plan, outcome=Outcome.ABSORBED, recovered_s=None)
    return replace(plan, recovered_s=0.4 + _jitter(seed) / 2)


def broken_rollback(arm: str, seed: int) -> Plan:
    plan = Plan(
        "broken-rollback",
        "A degraded model is promoted while the registry fails three requests in ten",
        arm,
        NOT,
        [
            Fault("registry.promote", "version 3", "alias champion points to version 3, accuracy 0.71"),
            Fault("network.errors", "healer->registry", "29 of 100 requests were answered 503", proof_delay_s=0.5),
        ],
        bad_share=0.29,
        impact_s=0.7,
        versions=((-10.0, "1"), (0.7, "3")),
        expected=(HEALED,) if arm == "elephant" else (),
    )
    if arm == "none":
        return plan
    at_s = 1.6 + _jitter(seed)
    tries = [
        detected(at_s, "canary_accuracy", "", "0.70 against a threshold of 0.97"),
        detected(at_s + 0.05, "champion_changed", "", "version 1 to version 3"),
        diagnosed(at_s + 0.1, "model_regressed", "version 3", "accuracy fell with the new champion"),
        *action(at_s + 0.15, 1.1, "roll_back", "version 1", "503 from the registry, 3 times", ok=False),
        *action(at_s + 1.9, 1.3, "roll_back", "version 1", "503 from the registry, 3 times", ok=False),
    ]
    if seed == 4:
        gave_up = (at_s + 4.6, Kind.HEALER_ESCALATED, "", {"summary": "every remedy was tried, and it persists"})
        return replace(plan, steps=[*tries, gave_up], escalations=("every remedy was tried, and it persists",))
    done = action(at_s + 3.9, 0.9, "roll_back", "version 1", "champion is version 1 again, verified")
    return replace(
        plan,
        outcome=HEALED,
        recovered_s=at_s + 5.3,
        healed_by=("roll_back",),
        versions=((-10.0, "1"), (0.7, "3"), (at_s + 5.1, "1")),
        steps=[
            *tries,
            *done,
            (at_s + 6.9, Kind.HEALER_RESOLVED, "", {"summary": "canary accuracy 1.00 for 1.5 s"}),
        ],
    )


def feature_store_outage(arm: str, seed: int) -> Plan:
    plan = Plan(
        "feature-store-outage",
        "The feature store is unreachable; replicas fall back to zeros",
        arm,
        REMOVED,
        [Fault("network.cut", "replica->features", "3 connections were cut, new ones are refused")],
        trouble="fallback",
        bad_share=0.52,
        impact_s=1.05,
        recovered_s=HORIZON_S + 0.3,
    )
    if arm == "none":
        return replace(plan, outcome=Outcome.INVALID, recovered_s=None) if seed == 2 else plan
    at_s = 1.2 + _jitter(seed)
    return replace(
        plan,
        outcome=HEALED,
        recovered_s=at_s + 0.45,
        healed_by=("serve_snapshot",),
        steps=[
            detected(at_s, "fallback", "replica-1", "62 % of rows by fallback"),
            detected(at_s + 0.01, "store_down", "", "connection refused"),
            diagnosed(at_s + 0.03, "features_unavailable", "", "the store is down and replicas fall back"),
            *action(at_s + 0.05, 0.25, "serve_snapshot", "good-4", "replicas serve snapshot good-4"),
            (at_s + 1.8, Kind.HEALER_RESOLVED, "", {"summary": "no fallback for 1.5 s"}),
            *action(at_s + 3.0, 0.2, "serve_live", "", "live features again"),
        ],
    )


def _jitter(seed: int) -> float:
    return float(np.random.default_rng(seed).uniform(0.0, 0.8))
