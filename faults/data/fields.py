"""Records of another shape, with misspelt names or wrong labels, on their way into the feature store."""

from __future__ import annotations

from monkeyproof.faults.support.record_stream import (
    LINK,
    UNDO,
    corrupt_records,
    drawn,
    labelled_so,
    rejected,
    under_another_name,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.targets.port import Features, Feedback, Links, Pipeline
from monkeyproof.types import Json

_REJECTED = "the pipeline rejects the batches, says why, and writes no more of them"
_UNDER_ANOTHER_NAME = "the feature store holds features under a name that there is not"
_SCHEMA = "a schema that both sides agree on; the last good features are served meanwhile"
_NAMES = "reject unknown names; what is written under them already has to be deleted"


@fault(
    needs=(Links, Features, Pipeline), evidence=_REJECTED, undo=UNDO, healing=_SCHEMA, draw=drawn(column="label")
)
def drop_column(
    column: str,
    link: str = LINK,
) -> dict[str, Json]:
    """Have every record that passes ``link`` come without one of its fields, or of its features.

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
    """Have a field of every record that passes ``link`` come under another name.

    Args:
        column: ``label`` and the like; features have places and no names.
    """
    return _schema("rename_column", link, "renamed_column", column, to=to)


@fault(needs=(Links, Features, Pipeline), evidence=_REJECTED, undo=UNDO, healing=_SCHEMA, draw=drawn(column="0"))
def retype_column(
    column: str,
    link: str = LINK,
) -> dict[str, Json]:
    """Have a field of every record that passes ``link``, or one of its features, come as text.

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
    """Have every record that passes ``link`` come with one field more: a copy of ``like``.

    Args:
        column: the new field's name.
    """
    return _schema("add_column", link, "extra_column", column, like=like)


@fault(
    needs=(Links, Features),
    evidence=_UNDER_ANOTHER_NAME,
    undo=f"{UNDO}; what was written under other names stays until the store forgets it",
    healing=_NAMES,
    draw=drawn(0.5),
)
def add_typos(
    link: str = LINK,
    share: float = 0.1,
) -> dict[str, Json]:
    """Misspell the entity of a share of the records: a character is left out, doubled, or changes places.

    The misspelt name may be another entity's.
    """
    return _texts("add_typos", link, "typo", share)


@fault(
    needs=(Links, Features),
    evidence=_UNDER_ANOTHER_NAME,
    undo=f"{UNDO}; what was written under other names stays until the store forgets it",
    healing=_NAMES,
    draw=drawn(0.5),
)
def unseen_categories(
    link: str = LINK,
    share: float = 0.1,
    value: str = "unseen",
) -> dict[str, Json]:
    """Have the entity of a share of the records be ``value``, which nobody has seen before."""
    return _texts("unseen_categories", link, "unseen_category", share, values=[value])


@fault(
    needs=(Links, Features),
    evidence=_UNDER_ANOTHER_NAME,
    undo=f"{UNDO}; what was written under other names stays until the store forgets it",
    healing=_NAMES,
    draw=drawn(0.5),
)
def break_encoding(
    link: str = LINK,
    share: float = 0.1,
) -> dict[str, Json]:
    """Have the entity of a share of the records come in a broken encoding: UTF-8 that was read as Latin-1.

    Where all of a name is ASCII one character of it is lost (U+FFFD).
    """
    return _texts("break_encoding", link, "broken_encoding", share)


@fault(
    needs=(Links, Features, Feedback),
    evidence="an answer was compared with a changed label",
    undo=UNDO,
    healing="none: answers are right; nothing should be rolled back or retrained for it",
    draw=drawn(0.5),
)
def flip_labels(
    link: str = LINK,
    share: float = 0.2,
) -> dict[str, Json]:
    """Turn a share of the labels, 0 and 1, into the other one: label noise."""
    return corrupt_records(
        "data.flip_labels",
        link,
        "label_noise",
        {"share": share, "classes": [0, 1]},
        proven_by=[labelled_so],
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
        proven_by=[rejected],
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
        proven_by=[under_another_name],
        rows_share=share,
    )
