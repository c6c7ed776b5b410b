"""The target file: what may be broken, and what steady means. YAML, read safely, checked strictly.

Errors name the file and line. Only ``${NAME}`` in header values is substituted, from the environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from monkeyproof.bounds import CAUTIOUS, AbortIf, Limits
from monkeyproof.errors import UsageError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Family = Literal["noop", "data", "network", "replicas", "registry", "features", "kubernetes"]
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

    within_s: Positive = 10.0
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

    latency_ms: Positive = 250.0
    objective: Share = 0.99
    """Share of good readings that counts as steady."""
    stable_for_s: Positive = 2.0
    recovery: RecoveryObjective = field(default_factory=RecoveryObjective)
    wrong_answers: Limit | None = None
    """Wrong answers that a trial may serve to the prober."""
    false_heals: Limit | None = None
    """Shams in which a healer may act although nothing is broken."""


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Windows:
    """How long each phase of a trial may last."""

    baseline_s: Positive = 1.5
    horizon_s: Positive = 15.0
    after_revert_s: Positive = 5.0


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class ProberSettings:
    """The clock behind every number."""

    rate_per_s: Annotated[float, Field(ge=1, le=500)] = 50.0
    timeout_ms: Positive = 1000.0


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Background load, all through a trial. A rate of 0 means none."""

    rate_per_s: Annotated[float, Field(ge=0, le=2000)] = 20.0


@with_config(_STRICT)
@dataclass(frozen=True, slots=True)
class Link:
    """Where the fault proxy stands in for a network path."""

    listen: Annotated[str, Field(pattern=r"^127\.0\.0\.1:\d+$")]
    forward: Annotated[str, Field(pattern=r"^[^:\s]+:\d+$")]
    protocol: Annotated[str, Field(pattern=r"^(http|tcp)$")] = "tcp"


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
    allow_faults: tuple[Family, ...] = ()
    """Families of faults that may be injected; anything else is refused."""
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
    _refuse_bad_url(found, f"{path}:{line_of(node, ('predict', 'url'))}")
    _refuse_bad_conditions(found, node, path)
    folder = path.resolve().parent
    headers = {
        name: _substitute(text, f"{path}:{line_of(node, ('predict', 'headers', name))}")
        for name, text in found.predict.headers.items()
    }
    return replace(
        found,
        path=path.resolve(),
        predict=replace(found.predict, golden=folder / found.predict.golden, headers=headers),
        stack=replace(found.stack, control=folder / found.stack.control) if found.stack else None,
    )


def read_text(path: Path) -> str:
    """A file that a person wrote.

    Raises:
        UsageError: it cannot be read, or is not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: cannot be read: {reason}") from None


def _refuse_bad_url(file: TargetFile, where: str) -> None:
    """What the pattern of a URL lets pass and a socket does not."""
    try:
        parts = urlsplit(file.predict.url)
        good = bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise UsageError(f"{where}: predict.url: not an address that can be asked (found {file.predict.url!r})")


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


def load_yaml(text: str, name: str) -> tuple[yaml.Node | None, Any]:
    """Parse YAML safely; returns the node tree (for line numbers) and the value.

    Raises:
        UsageError: it is not YAML, or a mapping has the same key twice; with file and line.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_duplicates(node, name)
        return node, yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UsageError(f"{name}:{line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{name}:1: not YAML: {str(error).splitlines()[0]}") from None


def _refuse_duplicates(node: yaml.Node | None, name: str) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UsageError(
                    f"{name}:{key.start_mark.line + 1}: not YAML that is understood: a key is not a word"
                )
            if key.value in seen:
                raise UsageError(f"{name}:{key.start_mark.line + 1}: {key.value}: said twice")
            seen.add(key.value)
            _refuse_duplicates(child, name)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_duplicates(child, name)


def line_of(node: yaml.Node | None, place: tuple[str | int, ...]) -> int:
    """The line, counted from 1, of the deepest part of ``place`` that the file has."""
    line = 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            match = next(((key, child) for key, child in node.value if key.value == str(part)), None)
            if match is None:
                break
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def problem_words(problem: Any) -> str:
    """One of pydantic's problems, for the person who wrote the file."""
    words = {
        "unexpected_keyword_argument": "unknown key",
        "extra_forbidden": "unknown key",
        "missing": "missing",
        "missing_argument": "missing",
    }
    return words.get(problem["type"]) or f"{problem['msg']} (found {problem['input']!r})"


def _substitute(text: str, where: str) -> str:
    def value(match: re.Match[str]) -> str:
        try:
            return os.environ[match[1]]
        except KeyError:
            raise UsageError(f"{where}: ${{{match[1]}}} is not set in the environment") from None

    filled = _VARIABLE.sub(value, text)
    # Not shown: it may be a secret.
    if not filled.isprintable() or not filled.isascii():
        raise UsageError(f"{where}: a header value holds a line break, a control or a non-ASCII character")
    return filled
