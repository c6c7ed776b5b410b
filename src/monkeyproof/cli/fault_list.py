"""The table of all faults, made from the code and the catalogue: for a terminal, and for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from monkeyproof.experiment import catalogue
from monkeyproof.injection.fault_registry import Fault, Parameter, all_faults, faults_in

if TYPE_CHECKING:
    from rich.console import Group, RenderableType


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
    """What there is to say of one fault, each with its title."""
    return (
        ("parameters", ", ".join(map(shown, fault.parameters)) or "none"),
        ("evidence", fault.evidence),
        ("undo", fault.undo),
        ("healing", fault.healing),
        ("experiments", ", ".join(experiments) or "none in the catalogue"),
    )


def for_terminal() -> Group:
    """What there is to say of every fault, as wide as the terminal is."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    experiments = experiments_by_fault()
    parts: list[RenderableType] = []
    for fault in all_faults():
        parts.append(Text.assemble((fault.name, "bold"), "  ", fault.summary.replace("``", "")))
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        for title, words in lines_of(fault, experiments.get(fault.name, ())):
            table.add_row(title, Text(words))
        parts += [table, Text()]
    return Group(*parts)


def as_markdown() -> str:
    """The table, as it stands in docs/faults.md."""
    experiments = experiments_by_fault()
    rows = ["| fault | parameters | evidence | undo | healing it calls for | experiments |", "|---" * 6 + "|"]
    for fault in all_faults():
        parameters, evidence, undo, healing, shown_in = (
            words for _, words in lines_of(fault, [f"`{name}`" for name in experiments.get(fault.name, ())])
        )
        code = f"`{parameters}`" if parameters != "none" else parameters
        cells = (f"`{fault.name}`", code, evidence, undo, healing, shown_in)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
