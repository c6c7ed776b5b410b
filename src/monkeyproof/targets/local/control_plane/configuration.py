"""What the supervisor writes for the parts to read, and the target file for those outside."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from monkeyproof import plugins
from monkeyproof.record.history import write_json
from monkeyproof.targets.local.control_plane.layout import CLIENT_LINK, REPLICAS, Plan, registry_link
from monkeyproof.targets.local.models.publishing import ALIAS, MODEL
from monkeyproof.types import Json

ALLOWED_FAULTS = tuple(family for family in plugins.BUILT_IN_FAMILIES if family != "kubernetes")


def write_configuration(plan: Plan) -> None:
    """One file a part, and the state of serving in which replicas begin."""
    features_host, _, features_port = plan.listen("replica->features").rpartition(":")
    pipeline_host, _, pipeline_port = plan.listen("pipeline->features").rpartition(":")
    replicas = {
        "registry_urls": {name: f"http://{plan.listen(registry_link(name))}" for name in REPLICAS},
        "model": MODEL,
        "alias": ALIAS,
        "features_host": features_host,
        "features_port": int(features_port),
        "serving_file": str(plan.serving_file),
        "snapshots_dir": str(plan.snapshots),
        "poll_s": 0.5,
        "feature_ttl_s": 1.0,
        "feature_timeout_ms": 100,
        "registry_timeout_s": 2,
    }
    source = {"port": plan.ports["source"], "data": str(plan.folder / "features.npz")}
    pipeline = {
        "source_url": f"http://{plan.listen('source->pipeline')}",
        "features_host": pipeline_host,
        "features_port": int(pipeline_port),
        "gateway_url": plan.url("gateway"),
        "reference": str(plan.folder / "features.npz"),
        "quarantine_dir": str(plan.quarantine),
        "metrics_port": plan.ports["pipeline"],
    }
    for name, value in (
        ("links", {name: dict(link) for name, link in plan.links.items()}),
        ("replicas", replicas),
        ("source", source),
        ("pipeline", pipeline),
        ("serving", {"mode": "live", "snapshot": "", "generation": 1}),
    ):
        write_json(plan.folder / f"{name}.json", value)


def write_target_file(plan: Plan) -> None:
    """The embedded target, described in the same form as anybody's."""
    described = {
        "name": "embedded",
        "predict": {
            "url": f"http://{plan.listen(CLIENT_LINK)}/invocations",
            "golden": "golden.jsonl",
            "degraded": "X-Degraded",
            "model_version": "X-Model-Version",
        },
        "links": {name: dict(link) for name, link in plan.links.items()},
        "registry": {"uri": plan.url("registry"), "model": MODEL, "alias": ALIAS},
        "stack": {"control": str(plan.socket("control"))},
        "allow_faults": [*ALLOWED_FAULTS, *plugins.families()],
    }
    draft = plan.target_file.with_suffix(".draft")
    draft.write_text("# Written by the embedded target. It is gone when the target is down.\n")
    with draft.open("a") as file:
        yaml.safe_dump(described, file, sort_keys=False)
    draft.rename(plan.target_file)


def first_question(golden: Path) -> Json:
    """The body of the first line of a golden file."""
    with golden.open() as lines:
        return json.loads(next(lines))["body"]
