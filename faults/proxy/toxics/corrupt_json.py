"""The toxic that damages the body of JSON responses, and leaves their framing in order."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from monkeyproof.faults.proxy.hooks import WHOLE_RESPONSE, ShareOfMessages, WholeResponseToxic
from monkeyproof.faults.proxy.http.framing import Head
from monkeyproof.faults.proxy.http.messages import body_of, with_body
from monkeyproof.faults.proxy.request_random import AMOUNT, OWN, PLACE, uniform
from monkeyproof.faults.proxy.toxic import ActiveToxic
from monkeyproof.faults.proxy.toxic_registry import toxic
from monkeyproof.types import Json


@toxic("corrupt_json", hook=WHOLE_RESPONSE, protocols=("http",))
@dataclass(frozen=True, kw_only=True)
class CorruptJson(ShareOfMessages, WholeResponseToxic):
    """Damage the body of a share of the JSON responses: ``unparsable`` is not JSON any more, ``changed`` is JSON
    in which one number (or, without numbers, one truth value) is another."""

    mode: str = "unparsable"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.mode in ("unparsable", "changed"), "mode is 'unparsable' or 'changed'")

    def change_of(self, active: ActiveToxic, head: Head, own: bool) -> Callable[[bytes], bytes] | None:
        n = active.draw(own)
        if not self.hits(n, own=own):
            return None
        if not head.json:
            active.count("skipped")
            return None
        return lambda raw: self.corrupted(raw, active, n, own=own)

    def corrupted(self, raw: bytes, active: ActiveToxic, n: int, *, own: bool) -> bytes:
        """A whole response with a damaged body, well framed; unchanged where its body is not JSON."""
        body = body_of(raw)
        u = uniform(self.seed, (OWN if own else 0) + (AMOUNT if self.mode == "changed" else PLACE), n)
        try:
            message = json.loads(body)
            new = _changed(message, u) if self.mode == "changed" else _broken(body, u)
        except (ValueError, RecursionError):
            new = None
        if new is None:
            active.count("skipped")
            return raw
        active.hit(own)
        return with_body(raw, new)


def _broken(body: bytes, u: float) -> bytes | None:
    """The body cut short at a place in it, and closed with a byte that JSON has no use for."""
    cut = body.rstrip()
    return cut[: int(u * len(cut))] + b"\x00" if cut else None


def _changed(message: Json, u: float) -> bytes | None:
    """The message with one of its numbers changed, or without numbers one truth value; None without both."""
    places = list(_places(message, (int, float))) or list(_places(message, (bool,)))
    if not places:
        return None
    value, put = places[int(u * len(places))]
    put(not value if isinstance(value, bool) else value + 1 if value + 1 != value else -value)
    return json.dumps(message, separators=(",", ":")).encode()


def _places(inside: Json, types: tuple[type, ...]) -> Iterator[tuple[Json, Callable[[Json], None]]]:
    """Every value of these types in a message, in its order, with how to put another in its place."""
    if not isinstance(inside, dict | list):
        return
    for key, value in list(inside.items() if isinstance(inside, dict) else enumerate(inside)):
        if type(value) in types and value == value:  # Not NaN: it differs from itself.
            yield value, partial(operator.setitem, inside, key)
        else:
            yield from _places(value, types)
