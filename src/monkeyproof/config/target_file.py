"""The target file: what may be broken, and what steady means. Its YAML is read safely and checked strictly.

Errors name the file and line. Only ``${NAME}`` in header values is substituted, from the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from monkeyproof.config.limits import CAUTIOUS, AbortIf, Limits
from monkeyproof.config.redaction import register_header, register_secret
from monkeyproof.config.target_checks import (
    Problem,
    address_problems,
    boolean_problems,
    condition_problems,
    family_problems,
)
from monkeyproof.config.user_files import line_of, load_yaml, problem_words, read_text
from monkeyproof.errors import UsageError
from monkeyproof.plugins.registry import Plugin, declare, load_declared, plugins_beside

DAY_S = 86_400.0
TEN_MINUTES_MS = 600_000.0
# A longer time is a typing error, and more than a socket or a timer can take.
Seconds = Annotated[float, Field(gt=0, le=DAY_S, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(gt=0, le=TEN_MINUTES_MS, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
MODULE_NAME = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"
_STRICT = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Predict:
    """The prober's question, and how it reads the answer."""

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
    """Below 1, since no number of trials can show that recovery never fails."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    invalid_share_max: Annotated[float, Field(ge=0, le=1)] = 0.2
    """More invalid trials than this share make the verdict inconclusive."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Limit:
    """A hard limit: one trial beyond it fails the verdict, whatever the other trials show."""

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
    """Wrong answers that the prober may get in one trial."""
    false_heals: Limit | None = None
    """Sham trials in which a healer may act although nothing is broken."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Windows:
    """How long each phase of a trial may last."""

    baseline_s: Seconds = 1.5
    """The longest baseline. It ends as soon as enough readings in a row were good (at least 100, and 0.5 s; 299 at
    an objective of 0.99). After any other reading, it takes its whole window."""
    horizon_s: Seconds = 15.0
    after_revert_s: Seconds = 5.0


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class ProberSettings:
    """How often the prober asks, and how long it waits."""

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
    """A network path through the fault proxy."""

    listen: Annotated[str, Field(pattern=r"^127\.0\.0\.1:[0-9]{1,5}$")]
    forward: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+:[0-9]{1,5}$")]
    protocol: Annotated[str, Field(pattern=r"^(http|tcp|redis)$")] = "tcp"
    """``redis`` for RESP, the protocol of Redis and Valkey. ``tcp`` suits every protocol, with fewer faults."""


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
    """The cluster that faults may act on."""

    context: Annotated[str, Field(min_length=1)]
    """A context of the kubeconfig; ``in-cluster`` where there is no kubeconfig."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class TargetFile:
    """Everything that a target file says."""

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
    """Conditions that abort a trial."""
    path: Annotated[Path, Field(exclude=True)] = Path()
    """The file itself; set by ``read_target_file``."""

    @property
    def limits_in_force(self) -> Limits:
        """The file's limits; every target but the embedded one has cautious defaults."""
        return self.limits if self.stack else self.limits.or_else(CAUTIOUS)


_ADAPTER = TypeAdapter(TargetFile)
_VARIABLE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


def read_target_file(path: Path) -> TargetFile:
    """Read and check a target file.

    Raises:
        UsageError: the file is missing, is not YAML, or has an error; with file and line.
    """
    text = read_text(path)
    node, value = load_yaml(text, str(path))
    if not isinstance(value, dict):
        raise UsageError(f"{path}:1: a target file is a mapping with at least 'name' and 'predict'")
    if "path" in value:
        raise UsageError(f"{path}:{line_of(node, ('path',))}: path: not a key of a target file")
    _refuse(boolean_problems(value), node, path)
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
    _refuse(address_problems(found), node, path)
    _refuse(condition_problems(found), node, path)
    lines = [line_of(node, ("plugins", index)) for index in range(len(found.plugins))]
    declare(plugins_beside(path, list(zip(found.plugins, lines, strict=True))))
    _refuse(family_problems(found), node, path)
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


def _refuse(problems: Iterator[Problem], node: yaml.Node | None, path: Path) -> None:
    """Raise the first problem, if there is one, with its line."""
    for place, words in problems:
        raise UsageError(f"{path}:{line_of(node, place)}: {'.'.join(map(str, place))}: {words}")


def plugins_named_in(path: Path) -> Sequence[Plugin]:
    """The modules that a target file names in ``plugins``, whatever else in it is right or wrong. Imports nothing.

    Raises:
        UsageError: the file cannot be read, or is not YAML.
    """
    node, value = load_yaml(read_text(path), str(path))
    named = value.get("plugins") if isinstance(value, dict) else None
    lines = {str(one): line_of(node, ("plugins", index)) for index, one in enumerate(named or ())}
    return plugins_beside(path, [(one, line) for one, line in lines.items() if re.match(MODULE_NAME, one)])


def load_plugins_of(path: Path | None) -> None:
    """Import the plugins that a target file names, so that experiments and reports can use them.

    Does nothing for None, and for a file that does not exist: an embedded target is started later.

    Raises:
        UsageError: the file has an error, or a plugin cannot be imported; with file and line.
    """
    if path is not None and path.exists():
        read_target_file(path)
        load_declared()


def _header(name: str, text: str, where: str) -> str:
    """A header's value as it is sent; from then on it is hidden everywhere else.

    Raises:
        UsageError: a variable is not set, or the value has characters that a header must not have.
    """

    def value(match: re.Match[str]) -> str:
        try:
            found = os.environ[match[1]]
        except KeyError:
            raise UsageError(f"{where}: ${{{match[1]}}} is not set in the environment") from None
        register_secret(found, match[1])
        return found

    filled = _VARIABLE.sub(value, text)
    # The value is not shown: it may be a secret.
    if not filled.isprintable() or not filled.isascii():
        raise UsageError(f"{where}: a header value holds a line break, a control or a non-ASCII character")
    register_header(name, filled)
    return filled
