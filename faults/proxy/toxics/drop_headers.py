"""The toxic that leaves headers out of HTTP messages."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from monkeyproof.faults.proxy.hooks import DIRECTIONS, REQUEST_HEAD, RESPONSE_HEAD, HeadToxic, ShareOfMessages
from monkeyproof.faults.proxy.http.framing import Head
from monkeyproof.faults.proxy.http.messages import without_headers
from monkeyproof.faults.proxy.toxic import ActiveToxic, Hook
from monkeyproof.faults.proxy.toxic_registry import toxic

FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@toxic("drop_headers", hook=RESPONSE_HEAD, protocols=("http",))
@dataclass(frozen=True, kw_only=True)
class DropHeaders(ShareOfMessages, HeadToxic):
    """Leave the headers ``names`` (separated by commas) out of a share of the requests or responses."""

    names: str
    direction: str = "response"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.direction in DIRECTIONS, "direction is 'request' or 'response'")
        self.check(bool(self.lowered), "names is empty; it names headers, separated by commas")
        for name in sorted(self.lowered):
            self.check(bool(_NAME.fullmatch(name)), f"{name!r} is no name of a header")
            self.check(
                name not in FRAMING_HEADERS,
                f"without {name} the receiver cannot tell where the message ends; see truncate",
            )

    @cached_property
    def lowered(self) -> frozenset[str]:
        return frozenset(name.strip().lower() for name in self.names.split(",") if name.strip())

    def hook_on(self, protocol: str) -> Hook[Any]:  # noqa: ARG002
        return REQUEST_HEAD if self.direction == "request" else RESPONSE_HEAD

    def change_head(self, active: ActiveToxic, piece: bytes, head: Head, own: bool) -> bytes:  # noqa: ARG002
        if not self.hits(active.draw(own), own=own):
            return piece
        found = without_headers(piece, self.lowered)
        if found is piece:
            active.count("skipped")
        else:
            active.hit(own)
        return found
