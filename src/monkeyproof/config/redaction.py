"""What must not be written down: values of secrets, hidden wherever they turn up.

Whoever reads a secret makes it known here, and whoever writes a file for people asks for what is to be written
without it. By value, because a service may send back what it was sent, and an exception may quote anything. What
is known belongs to this process, as its environment does.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import TextIO
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

from monkeyproof.errors import printable
from monkeyproof.types import Json

SECRET_MIN = 4
"""Shorter values would be found everywhere."""
SETTING_MIN = 8
"""Of what an experiment's ``configuration`` or a URL says openly: most of it is no secret."""
HIDDEN = "[hidden]"

_TELLING = re.compile(r"passw|secret|token|api.?key|private.?key|authorization|cookie|credential|signature", re.I)
_HARMLESS = frozenset(
    {"accept", "accept-encoding", "cache-control", "connection", "content-length", "content-type", "date", "host"}
    | {"server", "user-agent"}
)
"""Headers whose values are no secrets, and stand everywhere."""
_USER = re.compile(r"(?<=//)[^/@\s]+(?=@)")
_QUERY = re.compile(r"(?<=\?)[^#\s]+")

_known: dict[str, str] = {}
_pattern: re.Pattern[str] | None = None


def know(value: object, name: str, *, least: int = SECRET_MIN) -> None:
    """From now on, ``value`` is written as ``name`` in brackets, also as it stands in a URL or in JSON."""
    global _pattern
    text = value if isinstance(value, str) else str(value)
    if len(text.strip()) < least or isinstance(value, bool):
        return
    for form in (text, text.strip(), quote(text, safe=""), quote(text), quote_plus(text), json.dumps(text)[1:-1]):
        _known.setdefault(form, f"[{name}]")
    # The longest first: one may be the beginning of another.
    _pattern = re.compile("|".join(re.escape(form) for form in sorted(_known, key=len, reverse=True)))


def know_header(name: str, text: str) -> None:
    """A header that somebody wants to be sent, with and without a scheme such as ``Bearer``."""
    if name.lower() not in _HARMLESS:
        least = SECRET_MIN if _TELLING.search(name) else SETTING_MIN
        know(text, f"header {name}", least=least)
        know(text.rpartition(" ")[2], f"header {name}", least=least)


def know_experiment(document: Mapping[str, Json]) -> None:
    """The secrets and settings of a Chaos Toolkit experiment, from the file or from the environment."""
    for place, value in _leaves(document.get("secrets"), "secrets"):
        know(value, place)
    for place, value in _leaves(document.get("configuration"), "configuration"):
        know(value, place, least=SECRET_MIN if _TELLING.search(place) else SETTING_MIN)
    for activity in _activities(document):
        provider = activity.get("provider")
        if isinstance(provider, dict):
            _know_provider(provider)


def know_loaded(configuration: Json, secrets: Json) -> None:
    """What Chaos Toolkit has loaded, from a vault too."""
    for place, value in (*_leaves(secrets, "secrets"), *_leaves(configuration, "configuration")):
        know(value, place, least=SECRET_MIN if place.startswith("secrets") else SETTING_MIN)


def redact(value: Json) -> Json:
    """The same without what is known, and without what stands where secrets stand: headers, and URLs' queries."""
    return _redact(value, "")


def redact_text(text: str) -> str:
    return _pattern.sub(lambda match: _known[match[0]], text) if _pattern else text


class RedactedStream:
    """A text stream, a log, on which nothing that is known appears, nor anything that would act on a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable(redact_text(text)))
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _redact(value: Json, key: str) -> Json:
    if isinstance(value, Mapping):
        if key in ("secrets", "configuration"):
            return {redact_text(str(name)): _descriptor(child) for name, child in value.items()}
        if key == "headers":
            return {redact_text(str(name)): _header(str(name), child) for name, child in value.items()}
        return {
            redact_text(name) if isinstance(name, str) else name: _redact(child, str(name))
            for name, child in value.items()
        }
    if isinstance(value, list | tuple):
        return [_redact(child, "") for child in value]
    if isinstance(value, str):
        if _TELLING.search(key) and value and not _is_reference(value):
            return HIDDEN
        if key == "url":
            value = _USER.sub(HIDDEN, _QUERY.sub(lambda match: match[0] if "${" in match[0] else HIDDEN, value))
        return redact_text(value)
    if isinstance(value, int | float) and str(value) in _known:
        return _known[str(value)]
    return value


def _descriptor(value: Json) -> Json:
    """Of a secret: where it is to be had, if that is what it says."""
    if isinstance(value, Mapping):
        if value.get("type") in ("env", "vault"):
            return {name: HIDDEN if name == "default" else child for name, child in value.items()}
        return {name: _descriptor(child) for name, child in value.items()}
    if isinstance(value, list):
        return [_descriptor(child) for child in value]
    return HIDDEN


def _header(name: str, value: Json) -> Json:
    if isinstance(value, str) and (name.lower() in _HARMLESS or _is_reference(value)):
        return redact_text(value)
    return HIDDEN


def _is_reference(text: str) -> bool:
    """``${token}``, or ``Bearer ${token}``: Chaos Toolkit fills it in when it is needed."""
    return re.fullmatch(r"(\w+ )?\$\{[\w.-]+\}", text) is not None


def _leaves(value: Json, place: str) -> Iterator[tuple[str, Json]]:
    """Every value below, with where it stands; in place of a variable's name, what the environment says."""
    if isinstance(value, Mapping):
        if value.get("type") == "env":
            # From the environment, whatever it is: a word of the experiment's author is no leave to repeat it.
            know(os.environ.get(str(value.get("key")), ""), place)
            yield from _leaves(value.get("default"), place)
        elif value.get("type") not in ("vault", "probe"):
            for name, child in value.items():
                yield from _leaves(child, f"{place}.{name}")
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(child, place)
    elif value is not None:
        yield place, value


def _activities(document: Mapping[str, Json]) -> Iterator[Mapping[str, Json]]:
    hypothesis = document.get("steady-state-hypothesis")
    probes = hypothesis.get("probes") if isinstance(hypothesis, Mapping) else None
    for section in (probes, document.get("method"), document.get("rollbacks")):
        if isinstance(section, list):
            yield from (activity for activity in section if isinstance(activity, dict))


def _know_provider(provider: Mapping[str, Json]) -> None:
    headers, url = provider.get("headers"), provider.get("url")
    if isinstance(headers, dict):
        for name, text in headers.items():
            if isinstance(text, str) and not _is_reference(text):
                know_header(str(name), text)
    if isinstance(url, str):
        try:
            parts = urlsplit(url)
            know(parts.password or "", "url")
            know(parts.username or "", "url", least=SETTING_MIN)
            for name, text in parse_qsl(parts.query):
                if "${" not in text:
                    know(text, f"url {name}", least=SECRET_MIN if _TELLING.search(name) else SETTING_MIN)
        except ValueError:
            return
