"""Hides the values of secrets in everything that is written.

Code that reads a secret registers it here; code that writes for people passes what it writes through ``redact``.
Secrets are found by value, because a service may echo what it received, and an exception may quote anything. The
register belongs to the process, as its environment does.
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
"""The shortest secret that is hidden: shorter values occur everywhere."""
SETTING_MIN = 8
"""The shortest value of an experiment's ``configuration`` or of a URL that is hidden: most are no secrets."""
HIDDEN = "[hidden]"

_TELLING = re.compile(r"passw|secret|token|api.?key|private.?key|authorization|cookie|credential|signature", re.I)
_HARMLESS = frozenset(
    {"accept", "accept-encoding", "cache-control", "connection", "content-length", "content-type", "date", "host"}
    | {"server", "user-agent"}
)
"""Headers whose values are no secrets, and occur everywhere."""
_USER = re.compile(r"(?<=//)[^/@\s]+(?=@)")
_QUERY = re.compile(r"(?<=\?)[^#\s]+")

_registered: dict[str, str] = {}
"""What each secret, in each of its forms, is written as."""
_pattern: re.Pattern[str] | None = None


def register_secret(value: object, name: str, *, least: int = SECRET_MIN) -> None:
    """From now on, write ``value`` as ``name`` in brackets, also in the form that it has in a URL or in JSON.

    Args:
        least: shorter values are not registered.
    """
    global _pattern
    text = value if isinstance(value, str) else str(value)
    if len(text.strip()) < least or isinstance(value, bool):
        return
    for form in (text, text.strip(), quote(text, safe=""), quote(text), quote_plus(text), json.dumps(text)[1:-1]):
        _registered.setdefault(form, f"[{name}]")
    # The longest first, since one can begin with another.
    _pattern = re.compile("|".join(re.escape(form) for form in sorted(_registered, key=len, reverse=True)))


def register_header(name: str, text: str) -> None:
    """Register the value of a header that is to be sent, with and without a scheme such as ``Bearer``."""
    if name.lower() not in _HARMLESS:
        least = SECRET_MIN if _TELLING.search(name) else SETTING_MIN
        register_secret(text, f"header {name}", least=least)
        register_secret(text.rpartition(" ")[2], f"header {name}", least=least)


def register_experiment_secrets(document: Mapping[str, Json]) -> None:
    """Register the secrets and settings of a Chaos Toolkit experiment, from the file or the environment."""
    for place, value in _leaves(document.get("secrets"), "secrets"):
        register_secret(value, place)
    for place, value in _leaves(document.get("configuration"), "configuration"):
        register_secret(value, place, least=SECRET_MIN if _TELLING.search(place) else SETTING_MIN)
    for activity in _activities(document):
        provider = activity.get("provider")
        if isinstance(provider, dict):
            _register_provider_secrets(provider)


def register_loaded_secrets(configuration: Json, secrets: Json) -> None:
    """Register the secrets and settings that Chaos Toolkit has loaded, from a vault too."""
    for place, value in (*_leaves(secrets, "secrets"), *_leaves(configuration, "configuration")):
        register_secret(value, place, least=SECRET_MIN if place.startswith("secrets") else SETTING_MIN)


def redact(value: Json) -> Json:
    """A value without registered secrets, and without what commonly is a secret: headers, and queries of URLs."""
    return _redact(value, "")


def redact_text(text: str) -> str:
    """A text without registered secrets."""
    return _pattern.sub(lambda match: _registered[match[0]], text) if _pattern else text


class RedactedStream:
    """A text stream that hides registered secrets, and characters that would act on a terminal."""

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
    if isinstance(value, int | float) and str(value) in _registered:
        return _registered[str(value)]
    return value


def _descriptor(value: Json) -> Json:
    """A secret without its value: only where it comes from, if it says that."""
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
    """Whether a text is ``${token}`` or ``Bearer ${token}``, which Chaos Toolkit fills in later."""
    return re.fullmatch(r"(\w+ )?\$\{[\w.-]+\}", text) is not None


def _leaves(value: Json, place: str) -> Iterator[tuple[str, Json]]:
    """Every value below, with its place; a variable's value instead of its name."""
    if isinstance(value, Mapping):
        if value.get("type") == "env":
            # A value from the environment counts as a secret, wherever the experiment uses it.
            register_secret(os.environ.get(str(value.get("key")), ""), place)
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


def _register_provider_secrets(provider: Mapping[str, Json]) -> None:
    headers, url = provider.get("headers"), provider.get("url")
    if isinstance(headers, dict):
        for name, text in headers.items():
            if isinstance(text, str) and not _is_reference(text):
                register_header(str(name), text)
    if isinstance(url, str):
        try:
            parts = urlsplit(url)
            register_secret(parts.password or "", "url")
            register_secret(parts.username or "", "url", least=SETTING_MIN)
            for name, text in parse_qsl(parts.query):
                if "${" not in text:
                    register_secret(
                        text, f"url {name}", least=SECRET_MIN if _TELLING.search(name) else SETTING_MIN
                    )
        except ValueError:
            return
