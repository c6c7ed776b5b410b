"""Where, in a target, features are read from the store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from monkeyproof.config import TargetFile
from monkeyproof.faults.proxied import on_a_link
from monkeyproof.types import Json

LINK = "replica->features"


def where_features_are_read(
    rng: np.random.Generator, target: TargetFile, **arguments: Json
) -> Mapping[str, Json] | None:
    """Arguments of a fault where features are read: on the replicas' link, where there is one."""
    if LINK in target.links:
        return {"link": LINK, **arguments} if target.links[LINK].protocol == "redis" else None
    return on_a_link(rng, target, protocol="redis", **arguments)
