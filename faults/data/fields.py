"""Faults of the stream: records with another schema, misspelt names or wrong labels."""

from __future__ import annotations

from monkeyproof.faults.support.record_stream import (
    LINK,
    UNDO,
    batches_rejected,
    changed_label_used,
    corrupt_records,
    drawn,
    stored_under_other_name,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.targets.port import Features, Feedback, Links, Pipeline
from monkeyproof.types import Json

_REJECTED = "the pipeline rejects the batches, reports why, and writes no more of them"
_UNDER_ANOTHER_NAME = "the feature store holds features under a changed name"
_SCHEMA = "a schema that both sides agree on; serve the last good features meanwhile"
_NAMES = "reject unknown names, and delete what is already written under them"


@fault(
    needs=(Links, Features, Pipeline),
    evidence=_REJECTED,
    undo=UNDO,
    healing=_SCHEMA,
    draw=drawn(column="label"),
)
def drop_column(
    column: str,
    link: str = LINK,
) -> dict[str, Json]:
    """Drop one field, or one feature, of every record that passes ``link``.

    Args:
        column: ``label`` and the like; or the number of a feature, from 0 on.
    """
    return _schema("drop_column", link, "lost_column", column)


@fault(
    needs=(Links, Features, Pipeline),
    evidence=_REJECTED,
    undo=UNDO,
    healing=_SCHEMA,
    draw=drawn(column="label", to="target"),
)
def rename_column(
    column: str,
    to: str,
    link: str = LINK,
) -> dict[str, Json]:
    """Rename a field of every record that passes ``link``.

    Args:
        column: ``label`` and the like; features have places and no names.
    """
    return _schema("rename_column", link, "renamed_column", column, to=to)


@fault(needs=(Links, Features, Pipeline), evidence=_REJECTED, undo=UNDO, healing=_SCHEMA, draw=drawn(column="0"))
def retype_column(
    column: str,
    link: str = LINK,
) -> dict[str, Json]:
    """Turn a field, or a feature, of every record that passes ``link`` into text.

    Args:
        column: ``label`` and the like; or the number of a feature, from 0 on.
    """
    return _schema("retype_column", link, "text_column", column)


@fault(
    needs=(Links, Features, Pipeline),
    evidence=_REJECTED,
    undo=UNDO,
    healing=_SCHEMA,
    draw=drawn(column="label_2", like="label"),
)
def add_column(
    column: str,
    like: str,
    link: str = LINK,
) -> dict[str, Json]:
    """Add a field to every record that passes ``link``: a copy of ``like``.

    Args:
        column: the new field's name.
    """
    return _schema("add_column", link, "extra_column", column, like=like)


@fault(
    needs=(Links, Features),
    evidence=_UNDER_ANOTHER_NAME,
    undo=f"{UNDO}; what was written under other names stays until the store deletes it",
    healing=_NAMES,
    draw=drawn(0.5),
)
def add_typos(
    link: str = LINK,
    share: float = 0.1,
) -> dict[str, Json]:
    """Misspell the entity of a share of the records: a character is left out, doubled, or swapped with the next.

    The misspelt name may be another entity's.
    """
    return _texts("add_typos", link, "typo", share)


@fault(
    needs=(Links, Features),
    evidence=_UNDER_ANOTHER_NAME,
    undo=f"{UNDO}; what was written under other names stays until the store deletes it",
    healing=_NAMES,
    draw=drawn(0.5),
)
def unseen_categories(
    link: str = LINK,
    share: float = 0.1,
    value: str = "unseen",
) -> dict[str, Json]:
    """Replace the entity of a share of the records by ``value``, a category that was never seen before."""
    return _texts("unseen_categories", link, "unseen_category", share, values=[value])


@fault(
    needs=(Links, Features),
    evidence=_UNDER_ANOTHER_NAME,
    undo=f"{UNDO}; what was written under other names stays until the store deletes it",
    healing=_NAMES,
    draw=drawn(0.5),
)
def break_encoding(
    link: str = LINK,
    share: float = 0.1,
) -> dict[str, Json]:
    """Break the encoding of the entity in a share of the records: UTF-8 that was read as Latin-1.

    In a name that is all ASCII, one character is lost (U+FFFD).
    """
    return _texts("break_encoding", link, "broken_encoding", share)


@fault(
    needs=(Links, Features, Feedback),
    evidence="an answer was compared with a changed label",
    undo=UNDO,
    healing="none: answers are right; a rollback or a retraining would be wrong",
    draw=drawn(0.5),
)
def flip_labels(
    link: str = LINK,
    share: float = 0.2,
) -> dict[str, Json]:
    """Flip a share of the labels, 0 and 1: label noise."""
    return corrupt_records(
        "data.flip_labels",
        link,
        "label_noise",
        {"share": share, "classes": [0, 1]},
        proven_by=[changed_label_used],
        rows_share=share,
        needs=[Feedback],
    )


def _schema(name: str, link: str, kind: str, column: str, **parameters: Json) -> dict[str, Json]:
    numbers = (int(column),) if isinstance(column, str) and column.isdecimal() else ()
    return corrupt_records(
        f"data.{name}",
        link,
        kind,
        {"column": column, **parameters},
        proven_by=[batches_rejected],
        rows_share=1.0,
        columns=numbers,
        needs=[Pipeline],
    )


def _texts(name: str, link: str, kind: str, share: float, **parameters: Json) -> dict[str, Json]:
    return corrupt_records(
        f"data.{name}",
        link,
        kind,
        {"share": share, **parameters},
        proven_by=[stored_under_other_name],
        rows_share=share,
    )
