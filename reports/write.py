"""Writes the files of a report into the campaign's folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monkeyproof.reports.format_table import ReportFormat, describe, format_table
from monkeyproof.reports.model.report import Report


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """The files that were written, and what could not be."""

    files: tuple[Path, ...]
    failures: tuple[str, ...] = ()
    """Why a plugin's format was not written; one sentence each."""


def write_reports(report: Report, names: Sequence[str] = ()) -> WrittenReport:
    """Write every default format, or those of these ``names``, into ``report.folder``.

    A plugin that fails does not cost the other files: ``failures`` names it.

    Raises:
        UsageError: no format has one of these names, or the campaign holds a value that cannot be written.
        OSError: the folder cannot be written.
    """
    table = format_table()
    formats = table.chosen(names)
    report.folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    # A broken plugin does not matter to a user who chose formats that are there.
    failures = [] if names else list(table.broken_plugins)
    for one in formats:
        try:
            files.append(_write(one, report))
        except Exception as error:
            if one.built_in:
                raise
            failures.append(f"the report {one.file_name} of {one.module} cannot be written ({describe(error)})")
    return WrittenReport(tuple(files), tuple(failures))


def _write(one: ReportFormat, report: Report) -> Path:
    """Render a format, then replace its file: it is either the old one or the whole new one."""
    content = one.render(report)
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    if not isinstance(content, bytes):
        raise TypeError(f"a format returns text or bytes, and this one returned {type(content).__name__}")
    path = report.folder / one.file_name
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    return path
