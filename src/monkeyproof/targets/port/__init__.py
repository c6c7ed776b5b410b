"""The target port: what faults and healers may ask of a system under test.

A target has a name, the file that describes it, and *capabilities*. A capability is a small Protocol; a fault or a
remedy asks for the one it needs with ``require``, and is refused with a plain message where the target lacks it.
The embedded target and a cluster differ in how a thing is done, not in what is asked. One module each:

- ``target``: the target itself, ``require``, and resetting it between trials;
- ``replicas``: the scoring processes, and how they start and end;
- ``models``: the registry, its artifacts, publishing and deleting versions, loading a model safely;
- ``features``: the feature store, its pipeline, where replicas read features from, labelled feedback;
- ``links``: network paths through the fault proxy, and leases;
- ``telemetry``: what a healer may see.
"""

from __future__ import annotations

from monkeyproof.targets.port.features import (
    Features,
    Feedback,
    LabelledAnswer,
    Pins,
    Pipeline,
    PipelineStatus,
    Serving,
    Snapshots,
)
from monkeyproof.targets.port.links import LEASE_S, Leases, Links, Toxic
from monkeyproof.targets.port.models import (
    ArtifactFiles,
    Artifacts,
    Deletion,
    Models,
    ModelVersion,
    OtherModels,
    Publishing,
    Registry,
    TrialLoad,
)
from monkeyproof.targets.port.replicas import Processes, Replica, Replicas, StartCondition, Starts
from monkeyproof.targets.port.target import Resettable, Target, require
from monkeyproof.targets.port.telemetry import Telemetry

__all__ = [
    "LEASE_S",
    "ArtifactFiles",
    "Artifacts",
    "Deletion",
    "Features",
    "Feedback",
    "LabelledAnswer",
    "Leases",
    "Links",
    "ModelVersion",
    "Models",
    "OtherModels",
    "Pins",
    "Pipeline",
    "PipelineStatus",
    "Processes",
    "Publishing",
    "Registry",
    "Replica",
    "Replicas",
    "Resettable",
    "Serving",
    "Snapshots",
    "StartCondition",
    "Starts",
    "Target",
    "Telemetry",
    "Toxic",
    "TrialLoad",
    "require",
]
