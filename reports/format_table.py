"""The table of report formats: every file that ``monkeyproof run``, ``gate`` and ``report`` write.

A format is a function from the report model to the content of one file. This registers one:

    from monkeyproof.reports.format_table import report_format

    @report_format("verdict.txt")
    def verdict_line(report: Report) -> str:
        return f"{report.verdict.decision}: {report.verdict_reason}"

The formats of this package are the modules in ``monkeyproof.reports.formats``. A module of an installed package
is found by an entry point in the group ``monkeyproof.reports``, which names it; any other module that is imported
before reports are written (one that a target file names under ``plugins``) needs nothing else. Entry points are
loaded only when reports are written.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from monkeyproof.errors import UsageError
from monkeyproof.plugins.registry import REPORTS
from monkeyproof.reports.model.report import Report

BUILT_IN = "monkeyproof.reports.formats"
"""The package whose modules are the formats of monkeyproof itself."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Render = Callable[[Report], str | bytes]
"""Makes the content of the file: text, which is written as UTF-8, or bytes."""


@dataclass(frozen=True, slots=True)
class ReportFormat:
    """A row of the table."""

    name: str
    """As ``monkeyproof report --format`` takes it."""
    file_name: str
    """In the campaign's folder."""
    render: Render
    default: bool
    """Whether it is written without being asked for."""
    module: str
    """The module that registered it."""

    @property
    def built_in(self) -> bool:
        return self.module.startswith(f"{BUILT_IN}.")


@dataclass(frozen=True, slots=True)
class FormatTable:
    """All formats that are there, and the plugins that could not be loaded."""

    formats: tuple[ReportFormat, ...]
    """The campaign itself (``results.json``) first, then those of monkeyproof, then those of plugins."""
    broken_plugins: tuple[str, ...] = ()
    """Why a plugin could not be loaded; one sentence each."""

    def chosen(self, names: Sequence[str]) -> tuple[ReportFormat, ...]:
        """The formats of these names; without names, those that are written by default.

        Raises:
            UsageError: no format has one of these names.
        """
        if not names:
            return tuple(one for one in self.formats if one.default)
        by_name = {one.name: one for one in self.formats}
        for name in names:
            if name not in by_name:
                broken = "".join(f"; {why}" for why in self.broken_plugins)
                raise UsageError(f"report format {name!r}: unknown; there are {', '.join(by_name)}{broken}")
        return tuple(by_name[name] for name in dict.fromkeys(names))


_registered: dict[str, ReportFormat] = {}
"""By name."""


def report_format(file_name: str, *, name: str = "", default: bool = True) -> Callable[[Render], Render]:
    """Register a function as a report format, when its module is imported.

    Args:
        file_name: The file in the campaign's folder, without a path: ``trials.csv``.
        name: As ``monkeyproof report --format`` takes it; without one, the file name's end: ``csv``.
        default: Whether it is written without being asked for.

    Raises:
        ValueError: the file name is not a plain one, or another module has registered the name or the file.
    """
    if not _FILE_NAME.fullmatch(file_name):
        raise ValueError(f"report format {file_name!r}: a plain file name is needed, such as trials.csv")

    def register(render: Render) -> Render:
        found = ReportFormat(name or file_name.rpartition(".")[2], file_name, render, default, render.__module__)
        for other in _registered.values():
            if other.module != found.module and found.name == other.name:
                raise ValueError(f"report format {found.name!r}: {other.module} has registered this name already")
            if other.module != found.module and found.file_name == other.file_name:
                raise ValueError(f"report file {file_name!r}: {other.module} has registered this file already")
        _registered[found.name] = found
        return render

    return register


def format_table() -> FormatTable:
    """Load every format: those of monkeyproof, those that are registered already, and those of entry points."""
    package = importlib.import_module(BUILT_IN)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{BUILT_IN}.{module.name}")
    broken = tuple(filter(None, (_load(found) for found in entry_points(group=REPORTS))))
    return FormatTable(tuple(sorted(_registered.values(), key=_rank)), broken)


def _rank(one: ReportFormat) -> tuple[bool, bool, str, str]:
    return not one.built_in, one.file_name != "results.json", one.module, one.name


def _load(entry: EntryPoint) -> str:
    """Load a plugin. Returns why it cannot be loaded; empty if it can."""
    try:
        entry.load()
    except Exception as error:  # A plugin may raise anything. It must not cost a user the other reports.
        package = entry.dist.name if entry.dist else "an unknown package"
        return f"the report plugin {entry.value!r} of {package} cannot be loaded ({describe(error)})"
    return ""


def describe(error: BaseException) -> str:
    """``ValueError: no rows, in my_formats.py, line 12``: what was raised, and in which line of the plugin."""
    words = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return words
    file = trace.tb_frame.f_code.co_filename
    return f"{words}, in {file.rpartition('/')[2]}, line {trace.tb_lineno}"
