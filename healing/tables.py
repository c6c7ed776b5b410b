"""The tables of docs/elephant.md, made from the code: ``python -m monkeyproof.healing.tables`` prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from monkeyproof.healing.diagnose import TABLE, Cause, Row
from monkeyproof.healing.policy import POLICY
from monkeyproof.healing.remedies import REMEDIES
from monkeyproof.healing.remedy import Remedy


def causes_table() -> str:
    """What shows each cause, and what the Elephant does about it, as a Markdown table."""
    rows = []
    for cause in Cause:
        rule = POLICY[cause]
        shown_by = "; or ".join(_condition(row) for row in TABLE if row.cause is cause)
        tried = ", then ".join(_tries(rule.remedies)) or "none: it writes an incident"
        rows.append((_code(cause), shown_by, f"{tried}{_waits(rule.wait_s)}", _names(rule.quiet), rule.advice))
    head = ("cause", "shown by", "remedies, in order", "over when in range", "advice to a person")
    return _table(head, rows)


def remedies_table() -> str:
    """What each remedy does, masks and needs, and how it is lifted, as a Markdown table."""
    lifts = {one.lifted_by.name: one.name for one in REMEDIES.values() if one.lifted_by is not None}
    rows = []
    for name in sorted(REMEDIES, key=lambda name: (lifts.get(name, name), name in lifts)):
        one = REMEDIES[name]
        needs = ", ".join(_code(capability.__name__) for capability in one.needs)
        rows.append((_code(name), one.summary, _names(sorted(one.masks)) or "-", _lift(one, lifts), needs))
    return _table(("remedy", "what it does", "masks", "lifted by", "needs of the target"), rows)


def _condition(row: Row) -> str:
    parts = [" and ".join(map(_code, row.needs))]
    if row.excludes:
        parts.append(f"without {' or '.join(map(_code, row.excludes))}")
    if row.for_s:
        parts.append(f"for {row.for_s:g} s")
    return " ".join(parts)


def _tries(remedies: Sequence[str]) -> list[str]:
    counted = [(name, len(list(same))) for name, same in groupby(remedies)]
    return [_code(name) + (f" (up to {count} times)" if count > 1 else "") for name, count in counted]


def _waits(wait_s: float) -> str:
    return f"; the platform has {wait_s:g} s to heal it first" if wait_s else ""


def _lift(one: Remedy, lifts: dict[str, str]) -> str:
    if one.name in lifts:
        return f"- (it lifts {_code(lifts[one.name])})"
    if one.lifted_by is None or one.safe_when is None:
        return "- (it leaves nothing in force)"
    condition = (one.safe_when.__doc__ or "").strip().partition("\n")[0].removeprefix("Whether ").rstrip(".")
    return f"{_code(one.lifted_by.name)} after {one.evidence_s:g} s in which {condition}"


def _code(word: str) -> str:
    return f"`{word}`"


def _names(words: Iterable[str]) -> str:
    return ", ".join(map(_code, words))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    print(causes_table(), remedies_table(), sep="\n\n")
