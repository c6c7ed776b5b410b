"""Experiments: finding them, and checking them before anything is started.

An experiment is a plain Chaos Toolkit file. What is ours stands in its ``extensions``:

    extensions:
      - name: monkeyproof
        expect: {elephant: [healed], none: [fault_removed]}

An experiment with faults of somebody else's names what injects, what proves it and what undoes it:

        inject: stop-the-server
        evidence: server-is-stopped
        undo: continue-the-server

or ``undo: none``, where there is nothing to take back.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from monkeyproof import paths
from monkeyproof.config.redaction import register_experiment_secrets
from monkeyproof.config.user_files import line_of, load_yaml, problem_words, read_text
from monkeyproof.errors import Refusal, UsageError
from monkeyproof.experiment import activity_roles
from monkeyproof.experiment.activity_roles import Named
from monkeyproof.experiment.validation import argument_problems, structure_problems
from monkeyproof.types import Json, Outcome

EXTENSION = "monkeyproof"
TOUR = "tour"
"""Tag of those that run when none is named."""
ALL = "all"
"""In the place of a name: everything that the embedded target can do."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Extension:
    """What an experiment says to this harness."""

    name: str
    expect: Mapping[str, tuple[Outcome, ...]] = field(default_factory=dict)
    """Outcomes that the author expects, by arm."""
    inject: str = ""
    """Name of the activity that injects, where that is not one of this harness's faults."""
    evidence: str = ""
    """Name of the probe that proves that it took effect."""
    undo: str = ""
    """Name of the activity that undoes it; "none" if there is nothing to take back."""
    sham: bool = False
    """Whether nothing is broken, so that whatever a healer does is a false heal."""
    benign: bool = False
    """Whether the fault should harm nobody: then so is whatever a healer does where it harmed nobody."""

    @property
    def named(self) -> Named:
        return Named(self.inject, self.evidence, self.undo)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One checked experiment file."""

    name: str
    path: Path
    title: str
    description: str
    tags: tuple[str, ...]
    document: Mapping[str, Json]
    """As read. Chaos Toolkit changes what it runs, so hand it a deep copy."""
    sha256: str
    extension: Extension


def names() -> list[str]:
    """Names in the catalogue: ``latency-spike``, ``kubernetes/pod-kill``, in alphabetical order."""
    root = paths.experiments()
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))


def document_of(name: str) -> Mapping[str, Json]:
    """A catalogue's experiment as it is written, not checked."""
    path = paths.experiments() / f"{name}.yaml"
    document: Mapping[str, Json] = load_yaml(path.read_text(encoding="utf-8"), str(path))[1]
    return document


def for_embedded() -> list[str]:
    """Everything that the embedded target can do, shams left out."""
    return [name for name in names() if "/" not in name and name != "sham"]


def tour() -> list[str]:
    """What runs when nothing is named: a few that show what this is about, in two minutes."""
    return [name for name in for_embedded() if TOUR in (document_of(name).get("tags") or ())]


def chosen(said: Sequence[str]) -> Sequence[str]:
    """The experiments that are meant by what somebody said, each once."""
    meant = [each for name in said for each in (for_embedded() if name == ALL else [name])]
    return list(dict.fromkeys(meant)) or tour()


def find(name: str, named: Named | None = None) -> Experiment:
    """An experiment by its name in the catalogue, or by the path of a file.

    Args:
        named: its activities that inject, prove and undo, where the file does not say it, or says it otherwise.

    Raises:
        UsageError: there is none, or it is not valid; with file and line.
    """
    if name in names():
        return read(paths.experiments() / f"{name}.yaml", name, named)
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json") or path.exists():
        return read(path, path.stem, named)
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no experiment {name!r}: {hint}'monkeyproof list' shows what there is")


def read(path: Path, name: str, named: Named | None = None) -> Experiment:
    """Read and check one experiment file; imports what it names, changes nothing.

    Raises:
        UsageError: it cannot be read or run; with file and line.
        Refusal: nothing would undo its fault.
    """
    text = read_text(path)
    node, document = load_yaml(text, str(path))
    if not isinstance(document, dict):
        raise UsageError(f"{path}:1: an experiment is a mapping with title, description and method")
    problems = list(structure_problems(document)) or list(argument_problems(document))
    if problems:
        raise UsageError("\n".join(f"{path}:{line_of(node, place)}: {words}" for place, words in problems))
    register_experiment_secrets(document)
    _ask_chaos_toolkit(path, document)
    extension = _extension(path, node, document)
    if named is not None:
        meant = named.over(extension.named)
        extension = replace(extension, inject=meant.inject, evidence=meant.evidence, undo=meant.undo)
    _check_names(path, node, document, extension, named or Named())
    return Experiment(
        name=name,
        path=path.resolve(),
        title=document["title"],
        description=" ".join(str(document["description"]).split()),
        tags=tuple(document.get("tags") or ()),
        document=document,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        extension=extension,
    )


def _check_names(
    path: Path, node: yaml.Node | None, document: Mapping[str, Json], extension: Extension, flags: Named
) -> None:
    """Whether what is named, or guessed, will do.

    Raises:
        UsageError: a name is no activity's that could play that part; with file and line, or the option.
        Refusal: nothing would undo the fault, or one of ours stands beside what is not.
    """
    wrong = []
    for role, words in activity_roles.problems(document, extension.named):
        if role in flags.given():
            where = f"{path}: --{role}"
        elif role in extension.named.given():
            where = f"{path}:{line_of(node, (*_place_of_extension(document), role))}: {role}"
        else:
            where = f"{path}:{line_of(node, ('method',))}: {role}, which nothing names"
        wrong.append(f"{where}: {words}")
    if wrong:
        raise UsageError("\n".join(wrong))
    for place, why, what_to_do in activity_roles.strangers(document):
        raise Refusal(f"{path}:{line_of(node, place)}: {why}", what_to_do)
    found = activity_roles.roles_of(document, extension.named)
    why, what_to_do = found.why_no_way_back if found else ("", "")
    if why:
        raise Refusal(f"{path}:{line_of(node, ('method',))}: {why}", what_to_do)


def _place_of_extension(document: Mapping[str, Json]) -> tuple[str | int, ...]:
    for index, extension in enumerate(document.get("extensions") or ()):
        if isinstance(extension, dict) and extension.get("name") == EXTENSION:
            return "extensions", index
    return ()


def _ask_chaos_toolkit(path: Path, document: dict[str, Json]) -> None:
    import copy

    from chaoslib.exceptions import ChaosException
    from chaoslib.experiment import ensure_experiment_is_valid

    try:
        ensure_experiment_is_valid(copy.deepcopy(document))
    except Exception as error:  # It looks into what it expects to be there, and raises whatever that raises.
        words = str(error) if isinstance(error, ChaosException) else f"{type(error).__name__}: {error}"
        raise UsageError(f"{path}:1: not a valid Chaos Toolkit experiment: {words}") from None


def name_of(document: Mapping[str, Json]) -> str:
    """The catalogue's name of an experiment that Chaos Toolkit has loaded; else one made of its title."""
    title = str(document.get("title", ""))
    for name in names():
        if document_of(name)["title"] == title:
            return name
    words = "".join(letter if letter.isalnum() else " " for letter in title.lower()).split()
    return "-".join(words)[:60] or "untitled"


def extension_of(document: Mapping[str, Json]) -> Extension:
    """What a loaded experiment says to this harness.

    Raises:
        UsageError: its extension says something that is not understood.
    """
    return _extension(Path(str(document.get("title", "experiment"))), None, document)


def _extension(path: Path, node: yaml.Node | None, document: Mapping[str, Json]) -> Extension:
    place = _place_of_extension(document)
    if not place:
        return Extension(EXTENSION)
    try:
        return TypeAdapter(Extension).validate_python(document["extensions"][place[1]])
    except ValidationError as error:
        problem = error.errors()[0]
        words = ".".join(str(part) for part in problem["loc"])
        where = f"{path}:{line_of(node, (*place, *problem['loc']))}"
        raise UsageError(f"{where}: {words}: {problem_words(problem)}") from None
