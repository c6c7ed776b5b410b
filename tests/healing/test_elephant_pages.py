"""docs/elephant.md says what the code does, and the remedy on docs/extending/healer.md works as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from page_code import ROOT, CheckoutCopy, files_on

from monkeyproof.healing.detect import Signal
from monkeyproof.healing.tables import causes_table, remedies_table

PAGE = (ROOT / "docs" / "elephant.md").read_text(encoding="utf-8")
REMEDY = "healing/remedies/drop_caches.py"
TEST = "tests/healing/test_drop_caches.py"


def test_the_tables_of_causes_and_remedies_are_the_codes() -> None:
    for table in (causes_table(), remedies_table()):
        missing = [line for line in table.splitlines() if line not in PAGE]
        assert not missing, "print the tables with: python -m monkeyproof.healing.tables"
        assert table in PAGE


def test_every_signal_is_on_the_page() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE.split("## Signals")[1].split("\n## ")[0], re.MULTILINE) == list(
        Signal
    )


def test_every_file_that_the_page_names_exists() -> None:
    table = PAGE.split("## The loop")[1].split("\n\n")[2]
    named = [name for name in re.findall(r"`([\w/]+(?:\.py|/))`", table) if name != "healing/"]
    assert len(named) > 8
    assert not [name for name in named if not (ROOT / "healing" / name).exists()]


def test_the_remedy_is_one_file_beside_its_test(tmp_path: Path) -> None:
    files = files_on("docs/extending/healer.md")
    assert set(files) == {REMEDY, TEST}
    copy = CheckoutCopy(tmp_path)
    copy.add(files)
    assert "2 passed" in copy.run("-m", "pytest", "-q", TEST)
    tables = copy.run("-m", "monkeyproof.healing.tables")
    assert "`quarantine_and_restore` (up to 2 times), then `drop_caches`, then `serve_snapshot`" in tables
    assert "| `drop_caches` | Have the replicas forget the features that they remember. |" in tables


def test_the_row_of_the_policy_on_the_page_is_the_codes() -> None:
    page = (ROOT / "docs" / "extending" / "healer.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    policy = (ROOT / "healing" / "policy.py").read_text(encoding="utf-8")
    assert row in policy
