"""The list of all faults and probes, made from the code and the catalogue: for a terminal, and for the docs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from monkeyproof.experiment import catalogue
from monkeyproof.injection.fault_registry import (
    Fault,
    Parameter,
    all_faults,
    built_in_faults,
    declared_as,
    faults_in,
)
from monkeyproof.plugins import registry as plugins

if TYPE_CHECKING:
    from rich.console import Group, RenderableType

PROBE_MODULES = ("monkeyproof.probes.steady_state", "monkeyproof.probes.watch")
"""Modules with the built-in probes that an experiment can name."""


@dataclass(frozen=True, slots=True)
class ProbeEntry:
    """One function that an experiment can name as a probe."""

    module: str
    function: str
    summary: str
    origin: str
    """``built in``, or the plugin's package or module."""


def experiments_by_fault() -> Mapping[str, Sequence[str]]:
    """Names of the catalogue's experiments that inject each fault."""
    found: dict[str, list[str]] = {}
    for name in catalogue.names():
        for fault in dict.fromkeys(faults_in(catalogue.document_of(name))):
            found.setdefault(fault.name, []).append(name)
    return found


def shown(parameter: Parameter) -> str:
    """``low_ms`` if it has to be given, ``share=1.0`` if not."""
    if parameter.required:
        return parameter.name
    return f"{parameter.name}={parameter.default!r}" if parameter.default != "" else f'{parameter.name}=""'


def lines_of(fault: Fault, experiments: Sequence[str]) -> Sequence[tuple[str, str]]:
    """The facts of one fault, each with its title."""
    return (
        ("parameters", ", ".join(map(shown, fault.parameters)) or "none"),
        ("evidence", fault.evidence),
        ("undo", fault.undo),
        ("healing", fault.healing),
        ("experiments", ", ".join(experiments) or "none in the catalogue"),
    )


def faults_for_terminal() -> Group:
    """Every fault with its facts and where it comes from, as wide as the terminal is.

    Raises:
        UsageError: a plugin cannot be imported.
    """
    experiments = experiments_by_fault()
    return _described(
        (fault.name, fault.summary, [*lines_of(fault, experiments.get(fault.name, ())), ("from", fault.origin)])
        for fault in all_faults()
    )


def probes_for_terminal() -> Group:
    """Every probe that an experiment can name, and where it comes from."""
    return _described(
        (one.function, one.summary, [("module", one.module), ("from", one.origin)]) for one in all_probes()
    )


def all_probes() -> Sequence[ProbeEntry]:
    """Built-in probes, then those of plugins.

    Raises:
        UsageError: a plugin cannot be imported.
    """
    found = [one for name in PROBE_MODULES for one in _probes_of(importlib.import_module(name), "built in")]
    for plugin in plugins.installed(plugins.PROBES):
        found += _probes_of(plugin.imported(), plugin.origin, plugin.attribute)
    for plugin in plugins.declared():
        found += _probes_of(plugin.imported(), plugin.origin)
    return found


def _probes_of(module: ModuleType, origin: str, only: str = "") -> Iterator[ProbeEntry]:
    """The public functions of a module that are neither faults nor undos."""
    public = [only] if only else getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"])
    for name in public:
        function = getattr(module, name, None)
        if not inspect.isfunction(function) or declared_as(function) is not None or plugins.is_undo(function):
            continue
        if "__all__" in vars(module) or only or function.__module__ == module.__name__:
            summary = (inspect.getdoc(function) or "").split("\n\n")[0]
            yield ProbeEntry(module.__name__, name, " ".join(summary.split()), origin)


def _described(entries: Iterator[tuple[str, str, Sequence[tuple[str, str]]]]) -> Group:
    """Each entry as its name and summary, with its facts below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[RenderableType] = []
    for name, summary, facts in entries:
        parts.append(Text.assemble((name, "bold"), "  ", summary.replace("``", "")))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for title, words in facts:
            table.add_row(title, Text(words))
        parts += [table, Text()]
    return Group(*parts)


def as_markdown() -> str:
    """The table of built-in faults, as docs/faults.md has it."""
    experiments = experiments_by_fault()
    rows = ["| fault | parameters | evidence | undo | healing it calls for | experiments |", "|---" * 6 + "|"]
    for fault in built_in_faults():
        parameters, evidence, undo, healing, shown_in = (
            words for _, words in lines_of(fault, [f"`{name}`" for name in experiments.get(fault.name, ())])
        )
        code = f"`{parameters}`" if parameters != "none" else parameters
        cells = (f"`{fault.name}`", code, evidence, undo, healing, shown_in)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
