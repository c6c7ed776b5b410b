"""The one entry of this room: a campaign and its folder in, the report's files out."""

from __future__ import annotations

from pathlib import Path

from monkeyproof.reports.formats.html import HTML_FILE, write_html
from monkeyproof.reports.formats.junit import JUNIT_FILE, write_junit
from monkeyproof.reports.formats.markdown import MARKDOWN_FILE, write_markdown
from monkeyproof.reports.formats.results_json import RESULTS_FILE, write_results
from monkeyproof.reports.model.derived import derive
from monkeyproof.types import Campaign


def write_reports(campaign: Campaign, folder: Path) -> list[Path]:
    """Write results.json, report.md, report.html and junit.xml into the campaign's folder, and return them.

    They are made from the campaign and the histories in ``folder`` alone. The results come first: they are the
    campaign itself, whatever may be wrong with a page.

    Raises:
        UsageError: the campaign holds something that cannot be reported; the message names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_results(campaign, folder / RESULTS_FILE)
    return [
        write_results(campaign, folder / RESULTS_FILE, derive(campaign)),
        write_markdown(campaign, folder / MARKDOWN_FILE),
        write_html(campaign, folder, folder / HTML_FILE),
        write_junit(campaign, folder / JUNIT_FILE),
    ]
