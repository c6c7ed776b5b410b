"""Finds the links over which a target reads features from the store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from monkeyproof.config.target_file import TargetFile
from monkeyproof.errors import UsageError
from monkeyproof.faults.support.links import on_a_link
from monkeyproof.injection.inject import current
from monkeyproof.types import Json

LINK = "replica->features"
END = "->features"


def check_leads_to_store(link: str) -> None:
    """Raise UsageError for a link of the target that speaks no RESP and is not named as one to the features.

    A target that allows faults of features has not allowed faults of its users' links.
    """
    links = current().target.file.links
    known = sorted(name for name, one in links.items() if one.protocol == "redis" or name.endswith(END))
    if link in links and link not in known:
        raise UsageError(
            f"link: {link!r} does not lead to a feature store; these do: {', '.join(known) or 'none'} "
            f"(by 'protocol: redis' or a name that ends in {END!r}; faults of the family network take any link)"
        )


def where_features_are_read(
    rng: np.random.Generator, target: TargetFile, **arguments: Json
) -> Mapping[str, Json] | None:
    """Arguments of a fault where features are read: on the replicas' link, where there is one."""
    if LINK in target.links:
        return {"link": LINK, **arguments} if target.links[LINK].protocol == "redis" else None
    return on_a_link(rng, target, protocol="redis", **arguments)
