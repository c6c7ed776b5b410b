"""Checks of a target file that its types cannot make. Each yields the place of a problem, and words for it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from monkeyproof.config.user_files import shown
from monkeyproof.plugins.registry import BUILT_IN_FAMILIES, families

if TYPE_CHECKING:
    from monkeyproof.config.target_file import TargetFile

PORT_MAX = 65_535
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
Place = tuple[str | int, ...]
Problem = tuple[Place, str]


def boolean_problems(value: object, place: Place = ()) -> Iterator[Problem]:
    """Every boolean: pydantic would take it for a number, and no key of a target file is one."""
    if isinstance(value, bool):
        found = str(value).lower()
        yield place, f"neither a number nor text (found {found}); put text in quotes"
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from boolean_problems(child, (*place, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from boolean_problems(child, (*place, index))


def address_problems(file: TargetFile) -> Iterator[Problem]:
    """Addresses, ports and names of headers that the patterns let pass and a socket, or a request, does not."""
    if not _is_valid_url(file.predict.url):
        yield ("predict", "url"), f"not an address that can be asked (found {shown(file.predict.url)})"
    elif "@" in urlsplit(file.predict.url).netloc:
        yield (
            ("predict", "url"),
            'a user and a password stand in it; put them into headers: Authorization: "Basic ${NAME}"',
        )
    sent: list[tuple[Place, Mapping[str, str]]] = [(("predict",), file.predict.headers)]
    sent += [(("abort_if", index), one.headers or {}) for index, one in enumerate(file.abort_if)]
    for place, headers in sent:
        for name in headers:
            if not _TOKEN.fullmatch(name):
                yield (*place, "headers", name), f"not the name of a header (found {shown(name)})"
    for name, link in file.links.items():
        for side, address in (("listen", link.listen), ("forward", link.forward)):
            if int(address.rpartition(":")[2]) > PORT_MAX:
                yield ("links", name, side), f"no such port (found {shown(address)})"
    for index, one in enumerate(file.abort_if):
        for key, url in (("health_url", one.health_url), ("prometheus", one.prometheus)):
            if url is not None and not _is_valid_url(url):
                # Not shown: a password or a query in it may be a secret.
                yield ("abort_if", index, key), "not an address that can be asked"
    if file.registry is not None and not _is_valid_url(file.registry.uri):
        yield ("registry", "uri"), f"not an address that can be asked (found {shown(file.registry.uri)})"


def condition_problems(file: TargetFile) -> Iterator[Problem]:
    """Conditions of ``abort_if`` that contradict themselves or the objective."""
    for index, condition in enumerate(file.abort_if):
        problem = condition.problem()
        if problem is None and condition.error_budget_spent is not None and file.slo.objective == 1:
            problem = "error_budget_spent", "an objective of 1 leaves no budget that could be spent"
        if problem is not None:
            key, words = problem
            yield ("abort_if", index, key) if key else ("abort_if", index), words


def family_problems(file: TargetFile) -> Iterator[Problem]:
    """Families of faults that are neither built in nor a plugin's."""
    if set(file.allow_faults) <= set(BUILT_IN_FAMILIES):
        return  # The search for plugins takes time.
    known = (*BUILT_IN_FAMILIES, *families())
    for index, family in enumerate(file.allow_faults):
        if family not in known:
            close = difflib.get_close_matches(family, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            yield (
                ("allow_faults", index),
                f"no family of faults {shown(family)}: {hint}there are {', '.join(known)}; "
                "a plugin's family has to be installed, or its module named in plugins",
            )


def _is_valid_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.netloc.encode("idna")
        return bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable()
    except ValueError:
        return False
