"""The target file: what may be broken, and what steady means. YAML, read safely, checked strictly.

Errors name the file and line. Only ``${NAME}`` in header values is substituted, from the environment.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from monkeyproof.config.limits import CAUTIOUS, AbortIf, Limits
from monkeyproof.config.redaction import know, know_header
from monkeyproof.config.user_files import line_of, load_yaml, problem_words, read_text, shown
from monkeyproof.errors import UsageError
from monkeyproof.plugins import BUILT_IN_FAMILIES, Plugin, declare, families, plugins_beside

DAY_S = 86_400.0
TEN_MINUTES_MS = 600_000.0
# Longer is a slip of the finger, and more than a socket or a timer can be told.
Seconds = Annotated[float, Field(gt=0, le=DAY_S, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(gt=0, le=TEN_MINUTES_MS, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
MODULE_NAME = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Predict:
    """How the prober asks, and reads the answer."""

    url: Annotated[str, Field(pattern=r"^http://[^/\s]+(/\S*)?$")]
    golden: Path
    """JSON lines of {"body": ..., "expect": ..., "tolerance": ...}; relative to the target file."""
    method: Annotated[str, Field(pattern=r"^[A-Z]+$")] = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)
    answer: str = "$.predictions[0]"
    """JSONPath of the prediction in the response."""
    degraded: str = ""
    """Header (or JSONPath, if it begins with $) that is present and not false if a fallback was used."""
    model_version: str = ""
    """Header (or JSONPath) that names the model version."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class RecoveryObjective:
    """The recovery SLO: at least ``share`` of trials recover ``within_s``, at this confidence."""

    within_s: Seconds = 10.0
    share: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Below 1: no number of trials can show that it never fails."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    invalid_share_max: Annotated[float, Field(ge=0, le=1)] = 0.2
    """More invalid trials than this share make the verdict inconclusive."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Limit:
    """A hard limit: one trial beyond it fails the verdict, whatever the others did."""

    at_most: Annotated[int, Field(ge=0)]


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Slo:
    """What steady means."""

    latency_ms: Milliseconds = 250.0
    objective: Share = 0.99
    """Share of good readings that counts as steady."""
    stable_for_s: Seconds = 2.0
    recovery: RecoveryObjective = field(default_factory=RecoveryObjective)
    wrong_answers: Limit | None = None
    """Wrong answers that a trial may serve to the prober."""
    false_heals: Limit | None = None
    """Shams in which a healer may act although nothing is broken."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Windows:
    """How long each phase of a trial may last."""

    baseline_s: Seconds = 1.5
    """At most: where the prober's rate is high, the baseline ends as soon as enough readings in a row were good
    (at least 100, and 0.5 s; 299 at an objective of 0.99). Any other reading, and it takes its whole window."""
    horizon_s: Seconds = 15.0
    after_revert_s: Seconds = 5.0


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class ProberSettings:
    """The clock behind every number."""

    rate_per_s: Annotated[float, Field(ge=1, le=500)] = 50.0
    timeout_ms: Milliseconds = 1000.0


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Background load, all through a trial. A rate of 0 means none."""

    rate_per_s: Annotated[float, Field(ge=0, le=2000)] = 20.0


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Link:
    """Where the fault proxy stands in for a network path."""

    listen: Annotated[str, Field(pattern=r"^127\.0\.0\.1:[0-9]{1,5}$")]
    forward: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+:[0-9]{1,5}$")]
    protocol: Annotated[str, Field(pattern=r"^(http|tcp|redis)$")] = "tcp"
    """``redis`` for whatever speaks RESP: Redis, Valkey and their kin. Where ``tcp`` will do, it does as well."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """An MLflow registry."""

    uri: Annotated[str, Field(pattern=r"^http://[^/\s]+/?$")]
    model: str
    alias: str = "champion"


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class StackAddress:
    """The control socket of a running embedded target."""

    control: Path


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Kubernetes:
    """The cluster that may be touched."""

    context: Annotated[str, Field(min_length=1)]
    """Of the kubeconfig; ``in-cluster`` where there is none."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class TargetFile:
    """A target file, whole."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    predict: Predict
    slo: Slo = field(default_factory=Slo)
    windows: Windows = field(default_factory=Windows)
    prober: ProberSettings = field(default_factory=ProberSettings)
    load: LoadSettings = field(default_factory=LoadSettings)
    links: Mapping[str, Link] = field(default_factory=dict)
    registry: RegistryAddress | None = None
    stack: StackAddress | None = None
    kubernetes: Kubernetes | None = None
    allow_faults: tuple[str, ...] = ()
    """Families of faults that may be injected, built in or of plugins; anything else is refused."""
    plugins: tuple[Annotated[str, Field(pattern=MODULE_NAME)], ...] = ()
    """Modules with faults, probes or report formats of the user's own; see ``monkeyproof.plugins``."""
    limits: Limits = field(default_factory=Limits)
    abort_if: tuple[AbortIf, ...] = ()
    """What ends a trial at once."""
    path: Annotated[Path, Field(exclude=True)] = Path()
    """Where it was read from; set by the reader."""

    @property
    def limits_in_force(self) -> Limits:
        """The embedded target is there to be broken; every other one is handled with care."""
        return self.limits if self.stack else self.limits.or_else(CAUTIOUS)


_ADAPTER = TypeAdapter(TargetFile)
PORT_MAX = 65_535
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


def read_target_file(path: Path) -> TargetFile:
    """Read and check a target file.

    Raises:
        UsageError: it is missing, is not YAML, or says something that is not understood; with file and line.
    """
    text = read_text(path)
    node, value = load_yaml(text, str(path))
    if not isinstance(value, dict):
        raise UsageError(f"{path}:1: a target file is a mapping with at least 'name' and 'predict'")
    if "path" in value:
        raise UsageError(f"{path}:{line_of(node, ('path',))}: path: not a key of a target file")
    for place, said in _booleans(value):
        # Pydantic would take it for a number, and no key of a target file wants it.
        words = f"neither a number nor text (found {str(said).lower()}); put text in quotes"
        raise UsageError(f"{path}:{line_of(node, place)}: {'.'.join(map(str, place))}: {words}")
    try:
        found = _ADAPTER.validate_python(value)
    except ValidationError as error:
        problems = [
            f"{path}:{line_of(node, problem['loc'])}: "
            + ".".join(str(part) for part in problem["loc"])
            + f": {problem_words(problem)}"
            for problem in error.errors()
        ]
        raise UsageError("\n".join(problems)) from None
    for place, words in _address_problems(found):
        raise UsageError(f"{path}:{line_of(node, place)}: {'.'.join(map(str, place))}: {words}")
    _refuse_bad_conditions(found, node, path)
    lines = [line_of(node, ("plugins", index)) for index in range(len(found.plugins))]
    declare(plugins_beside(path, list(zip(found.plugins, lines, strict=True))))
    _refuse_unknown_families(found, node, path)
    folder = path.resolve().parent

    def filled(headers: Mapping[str, str], *place: str | int) -> dict[str, str]:
        return {
            name: _header(name, text, f"{path}:{line_of(node, (*place, 'headers', name))}")
            for name, text in headers.items()
        }

    headers = filled(found.predict.headers, "predict")
    conditions = tuple(
        replace(one, headers=filled(one.headers, "abort_if", index)) if one.headers else one
        for index, one in enumerate(found.abort_if)
    )
    return replace(
        found,
        path=path.resolve(),
        predict=replace(found.predict, golden=folder / found.predict.golden, headers=headers),
        stack=replace(found.stack, control=folder / found.stack.control) if found.stack else None,
        abort_if=conditions,
    )


def _booleans(value: object, place: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], bool]]:
    """Where a boolean stands, however deep."""
    if isinstance(value, bool):
        yield place, value
    elif isinstance(value, Mapping):
        for key, child in value.items():
            yield from _booleans(child, (*place, key))
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _booleans(child, (*place, index))


def _address_problems(file: TargetFile) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """What the patterns let pass and a socket, or a request, does not."""
    if not _can_be_asked(file.predict.url):
        yield ("predict", "url"), f"not an address that can be asked (found {shown(file.predict.url)})"
    elif "@" in urlsplit(file.predict.url).netloc:
        yield (
            ("predict", "url"),
            'a user and a password stand in it; put them into headers: Authorization: "Basic ${NAME}"',
        )
    sent: list[tuple[tuple[str | int, ...], Mapping[str, str]]] = [(("predict",), file.predict.headers)]
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
            if url is not None and not _can_be_asked(url):
                # Not shown: a password or a query in it may be a secret.
                yield ("abort_if", index, key), "not an address that can be asked"
    if file.registry is not None and not _can_be_asked(file.registry.uri):
        yield ("registry", "uri"), f"not an address that can be asked (found {shown(file.registry.uri)})"


def _can_be_asked(url: str) -> bool:
    try:
        parts = urlsplit(url)
        parts.netloc.encode("idna")
        return bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable()
    except ValueError:
        return False


def _refuse_bad_conditions(file: TargetFile, node: yaml.Node | None, path: Path) -> None:
    for index, condition in enumerate(file.abort_if):
        problem = condition.problem()
        if problem is None and condition.error_budget_spent is not None and file.slo.objective == 1:
            problem = "error_budget_spent", "an objective of 1 leaves no budget that could be spent"
        if problem is not None:
            key, words = problem
            place: tuple[str | int, ...] = ("abort_if", index, key) if key else ("abort_if", index)
            named = ".".join(str(part) for part in place)
            raise UsageError(f"{path}:{line_of(node, place)}: {named}: {words}")


def _refuse_unknown_families(file: TargetFile, node: yaml.Node | None, path: Path) -> None:
    if set(file.allow_faults) <= set(BUILT_IN_FAMILIES):
        return  # What is installed beside this package has to be searched for.
    known = (*BUILT_IN_FAMILIES, *families())
    for index, family in enumerate(file.allow_faults):
        if family not in known:
            close = difflib.get_close_matches(family, known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            where = f"{path}:{line_of(node, ('allow_faults', index))}: allow_faults.{index}"
            raise UsageError(
                f"{where}: no family of faults {shown(family)}: {hint}there are {', '.join(known)}; "
                "a plugin's family has to be installed, or its module named in plugins"
            )


def plugins_named_in(path: Path) -> Sequence[Plugin]:
    """The modules that a target file names in ``plugins``, whatever else in it is right or wrong. Imports nothing.

    Raises:
        UsageError: the file cannot be read, or is not YAML.
    """
    node, value = load_yaml(read_text(path), str(path))
    named = value.get("plugins") if isinstance(value, dict) else None
    lines = {str(one): line_of(node, ("plugins", index)) for index, one in enumerate(named or ())}
    return plugins_beside(path, [(one, line) for one, line in lines.items() if re.match(MODULE_NAME, one)])


def _header(name: str, text: str, where: str) -> str:
    """A header as it is sent. What stands in it is not to be seen anywhere else."""

    def value(match: re.Match[str]) -> str:
        try:
            found = os.environ[match[1]]
        except KeyError:
            raise UsageError(f"{where}: ${{{match[1]}}} is not set in the environment") from None
        know(found, match[1])
        return found

    filled = _VARIABLE.sub(value, text)
    # Not shown: it may be a secret.
    if not filled.isprintable() or not filled.isascii():
        raise UsageError(f"{where}: a header value holds a line break, a control or a non-ASCII character")
    know_header(name, filled)
    return filled
