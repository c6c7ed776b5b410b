"""Experiments: finding them, and checking them before anything starts.

An experiment is a plain Chaos Toolkit file. What this harness reads of it stands in its ``extensions``:

    extensions:
      - name: monkeyproof
        trial: {hold: {at_most_s: 10.0}}
        expect: {elephant: [healed], none: [fault_removed]}

``trial`` adds the steps of a trial around the method (see ``trial_steps``). An experiment with external faults
names the activities that inject the fault, prove it and undo it:

        inject: stop-the-server
        evidence: server-is-stopped
        undo: continue-the-server

or ``undo: none``, where there is nothing to undo.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
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
from monkeyproof.experiment.activity_roles import ActivityNames
from monkeyproof.experiment.trial_steps import (
    EXTENSION,
    ExpandedExperiment,
    Problem,
    asks_for_steps,
    expand,
    place_of_extension,
)
from monkeyproof.experiment.validation import argument_problems, structure_problems, use_new_names
from monkeyproof.injection.fault_registry import warn_renamed
from monkeyproof.types import Json, Outcome

logger = logging.getLogger("monkeyproof")

TOUR = "tour"
"""The tag of the experiments that run when the command line names none."""
ALL = "all"
"""Stands for the names of all experiments that the embedded target supports."""
RENAMED = {
    "black-hole-to-the-features": "feature-store-blackhole",
    "broken-names": "broken-encoding",
    "flipped-bits-from-the-store": "feature-store-bit-flips",
    "garbled-answers": "corrupt-json-answers",
    "handles-used-up": "file-descriptor-exhaustion",
    "lost-headers": "dropped-headers",
    "lost-records": "dropped-records",
    "misspelt-names": "entity-name-typos",
    "resets-in-mid-answer": "connection-resets-mid-answer",
    "thin-line-to-the-features": "feature-store-bandwidth-limit",
    "unseen-names": "unseen-categories",
}
"""Old names of experiments, which one more version accepts, and their new names."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, slots=True)
class Extension:
    """What an experiment says to this harness, besides the steps of its trial, which it holds already."""

    name: str
    expect: Mapping[str, tuple[Outcome, ...]] = field(default_factory=dict)
    """Outcomes that the author expects, by arm."""
    inject: str = ""
    """Name of the activity that injects, where that is not one of this harness's faults."""
    evidence: str = ""
    """Name of the probe that proves that the fault took effect."""
    undo: str = ""
    """Name of the activity that undoes the fault; "none" if there is nothing to undo."""
    sham: bool = False
    """Whether the experiment breaks nothing, so that every action of a healer is a false-positive remediation."""
    benign: bool = False
    """Whether the fault should harm no user: if it harms none, every action of a healer is a false positive."""

    @property
    def named(self) -> ActivityNames:
        """The activities that inject, prove and undo, as far as the extension names them."""
        return ActivityNames(self.inject, self.evidence, self.undo)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One checked experiment file."""

    name: str
    path: Path
    title: str
    description: str
    tags: tuple[str, ...]
    document: Mapping[str, Json]
    """As it runs, with every step of its trial. Chaos Toolkit changes what it runs, so hand it a deep copy."""
    sha256: str
    """Of the file's text."""
    extension: Extension
    added_steps: tuple[str, ...] = ()
    """One phrase for each step of the trial that the file does not spell out, in the order in which they run."""


def names() -> list[str]:
    """Names in the catalogue: ``latency-spike``, ``kubernetes/pod-kill``, in alphabetical order."""
    root = paths.experiments()
    return sorted(str(path.relative_to(root).with_suffix("")) for path in root.rglob("*.yaml"))


def document_of(name: str) -> Mapping[str, Json]:
    """An experiment of the catalogue as its file has it: neither checked nor expanded."""
    path = paths.experiments() / f"{name}.yaml"
    document: Mapping[str, Json] = load_yaml(path.read_text(encoding="utf-8"), str(path))[1]
    return document


def for_embedded() -> list[str]:
    """All experiments that the embedded target supports, without the sham."""
    return [name for name in names() if "/" not in name and name != "sham"]


def tour() -> list[str]:
    """The experiments that run when the command line names none: five that take about two minutes."""
    return [name for name in for_embedded() if TOUR in (document_of(name).get("tags") or ())]


def chosen(given: Sequence[str]) -> Sequence[str]:
    """The experiments that the words of a command line mean, each once; the tour if there are no words."""
    meant = [each for name in given for each in (for_embedded() if name == ALL else [current_name(name)])]
    return list(dict.fromkeys(meant)) or tour()


def current_name(name: str) -> str:
    """The name itself or, with a warning, the new name of an experiment that has been renamed."""
    if name not in RENAMED:
        return name
    logger.warning("The experiment %r is called %r now; the next version drops the old name.", name, RENAMED[name])
    return RENAMED[name]


def find(name: str, named: ActivityNames | None = None) -> Experiment:
    """An experiment by its name in the catalogue, or by the path of a file.

    Args:
        named: its activities that inject, prove and undo; they take precedence over those in the file.

    Raises:
        UsageError: there is no such experiment, or it is not valid; with file and line.
        Refusal: nothing would undo its fault.
    """
    name = current_name(name)
    if name in names():
        return read(paths.experiments() / f"{name}.yaml", name, named)
    path = Path(name)
    if path.suffix in (".yaml", ".yml", ".json") or path.exists():
        return read(path, path.stem, named)
    close = difflib.get_close_matches(name, names(), n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no experiment {name!r}: {hint}'monkeyproof list' shows the catalogue")


def read(path: Path, name: str, named: ActivityNames | None = None) -> Experiment:
    """Read, expand and check one experiment file; imports the modules that it names, changes nothing.

    Raises:
        UsageError: the file cannot be read, or the experiment cannot run; with file and line.
        Refusal: nothing would undo its fault.
    """
    text = read_text(path)
    node, written = load_yaml(text, str(path))
    if not isinstance(written, dict):
        raise UsageError(f"{path}:1: an experiment is a mapping with title, description and method")
    _raise_problems(path, node, list(structure_problems(written)))
    for place, former, fault in use_new_names(written):
        warn_renamed(former, fault, f"{path}:{line_of(node, place)}")
    expanded = expand(written)
    document = expanded.document
    _raise_problems(path, node, [(expanded.written_at(at), words) for at, words in argument_problems(document)])
    register_experiment_secrets(document)
    _ask_chaos_toolkit(path, document)
    extension = _extension(path, node, document)
    if named is not None:
        meant = named.with_defaults(extension.named)
        extension = replace(extension, inject=meant.inject, evidence=meant.evidence, undo=meant.undo)
    _check_names(path, node, document, extension, named or ActivityNames())
    return Experiment(
        name=name,
        path=path.resolve(),
        title=document["title"],
        description=" ".join(str(document["description"]).split()),
        tags=tuple(document.get("tags") or ()),
        document=document,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        extension=extension,
        added_steps=expanded.added_steps,
    )


def expand_loaded(document: dict[str, Json]) -> ExpandedExperiment:
    """Expand an experiment that Chaos Toolkit has loaded and found valid.

    Raises:
        UsageError: its extension asks for the steps of a trial in a way that is not understood.
    """
    problems = list(structure_problems(document)) if asks_for_steps(document) else []
    if problems:
        raise UsageError("\n".join(f"{document.get('title', 'experiment')}: {words}" for _, words in problems))
    return expand(document)


def _raise_problems(path: Path, node: yaml.Node | None, problems: Sequence[Problem]) -> None:
    if problems:
        raise UsageError("\n".join(f"{path}:{line_of(node, place)}: {words}" for place, words in problems))


def _check_names(
    path: Path, node: yaml.Node | None, document: Mapping[str, Json], extension: Extension, flags: ActivityNames
) -> None:
    """Check the activities that inject, prove and undo, named or guessed.

    Raises:
        UsageError: no activity of a given name can have that role; with file and line, or the option.
        Refusal: nothing would undo the fault, or an external action stands beside a fault of this harness.
    """
    wrong = []
    for role, words in activity_roles.naming_problems(document, extension.named):
        if role in flags.given():
            where = f"{path}: --{role}"
        elif role in extension.named.given():
            where = f"{path}:{line_of(node, (*place_of_extension(document), role))}: {role}"
        else:
            where = f"{path}:{line_of(node, ('method',))}: {role}, which nothing names"
        wrong.append(f"{where}: {words}")
    if wrong:
        raise UsageError("\n".join(wrong))
    for place, why, what_to_do in activity_roles.external_activities(document):
        raise Refusal(f"{path}:{line_of(node, place)}: {why}", what_to_do)
    found = activity_roles.roles_of(document, extension.named)
    why, what_to_do = found.why_not_undoable if found else ("", "")
    if why:
        raise Refusal(f"{path}:{line_of(node, ('method',))}: {why}", what_to_do)


def _ask_chaos_toolkit(path: Path, document: dict[str, Json]) -> None:
    import copy

    from chaoslib.exceptions import ChaosException
    from chaoslib.experiment import ensure_experiment_is_valid

    try:
        ensure_experiment_is_valid(copy.deepcopy(document))
    except Exception as error:  # Chaos Toolkit reads keys that may be missing, and raises whatever that raises.
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
    """The extension of an expanded experiment that Chaos Toolkit has loaded.

    Raises:
        UsageError: it has a key or a value that is not understood.
    """
    return _extension(Path(str(document.get("title", "experiment"))), None, document)


def _extension(path: Path, node: yaml.Node | None, document: Mapping[str, Json]) -> Extension:
    place = place_of_extension(document)
    if not place:
        return Extension(EXTENSION)
    try:
        return TypeAdapter(Extension).validate_python(document["extensions"][place[1]])
    except ValidationError as error:
        problem = error.errors()[0]
        words = ".".join(str(part) for part in problem["loc"])
        where = f"{path}:{line_of(node, (*place, *problem['loc']))}"
        raise UsageError(f"{where}: {words}: {problem_words(problem)}") from None
