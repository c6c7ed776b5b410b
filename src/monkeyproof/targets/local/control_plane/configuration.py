"""Writes the configuration files of the target's parts, and its target file."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from monkeyproof.plugins import registry as plugins
from monkeyproof.record.history import write_json
from monkeyproof.targets.local.control_plane.layout import CLIENT_LINK, REPLICAS, StackLayout, registry_link
from monkeyproof.targets.local.models.publishing import ALIAS, MODEL
from monkeyproof.types import Json

ALLOWED_FAULTS = tuple(family for family in plugins.BUILT_IN_FAMILIES if family != "kubernetes")


def write_configuration(layout: StackLayout) -> None:
    """Write one file for each part, and the feature mode with which replicas begin."""
    features_host, _, features_port = layout.listen("replica->features").rpartition(":")
    pipeline_host, _, pipeline_port = layout.listen("pipeline->features").rpartition(":")
    replicas = {
        "registry_urls": {name: f"http://{layout.listen(registry_link(name))}" for name in REPLICAS},
        "model": MODEL,
        "alias": ALIAS,
        "features_host": features_host,
        "features_port": int(features_port),
        "serving_file": str(layout.serving_file),
        "snapshots_dir": str(layout.snapshots),
        "poll_s": 0.5,
        "feature_ttl_s": 1.0,
        "feature_timeout_ms": 100,
        "registry_timeout_s": 2,
    }
    source = {"port": layout.ports["source"], "data": str(layout.folder / "features.npz")}
    pipeline = {
        "source_url": f"http://{layout.listen('source->pipeline')}",
        "features_host": pipeline_host,
        "features_port": int(pipeline_port),
        "gateway_url": layout.url("gateway"),
        "reference": str(layout.folder / "features.npz"),
        "quarantine_dir": str(layout.quarantine),
        "metrics_port": layout.ports["pipeline"],
    }
    for name, value in (
        ("links", {name: dict(link) for name, link in layout.links.items()}),
        ("replicas", replicas),
        ("source", source),
        ("pipeline", pipeline),
        ("serving", {"mode": "live", "snapshot": "", "generation": 1}),
    ):
        write_json(layout.folder / f"{name}.json", value)


def write_target_file(layout: StackLayout) -> None:
    """Describe the embedded target in the same form as any other target."""
    described = {
        "name": "embedded",
        "predict": {
            "url": f"http://{layout.listen(CLIENT_LINK)}/invocations",
            "golden": "golden.jsonl",
            "degraded": "X-Degraded",
            "model_version": "X-Model-Version",
        },
        "links": {name: dict(link) for name, link in layout.links.items()},
        "registry": {"uri": layout.url("registry"), "model": MODEL, "alias": ALIAS},
        "stack": {"control": str(layout.socket("control"))},
        "allow_faults": [*ALLOWED_FAULTS, *plugins.families()],
    }
    draft = layout.target_file.with_suffix(".draft")
    draft.write_text("# Written by the embedded target. It is deleted when the target goes down.\n")
    with draft.open("a") as file:
        yaml.safe_dump(described, file, sort_keys=False)
    draft.rename(layout.target_file)


def first_question(golden: Path) -> Json:
    """The body of the first line of a golden file."""
    with golden.open() as lines:
        return json.loads(next(lines))["body"]
