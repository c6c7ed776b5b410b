"""Drift in the records that pass a link: of inputs (covariate), of the class mix (prior), of the concept."""

from __future__ import annotations

from monkeyproof.errors import Refusal, UsageError
from monkeyproof.faults.support.checks import check_rows
from monkeyproof.faults.support.links import check_link
from monkeyproof.faults.support.record_stream import (
    LINK,
    REACHED_STORE,
    UNDO,
    changed_label_used,
    columns_from,
    corrupt_records,
    drawn,
    positions_skipped,
)
from monkeyproof.injection.fault_registry import fault
from monkeyproof.injection.inject import current
from monkeyproof.targets.port import Features, Feedback, Links, Models, Pipeline, Registry, require
from monkeyproof.types import Json

_PACE_OVER_S, _PACE_WITHIN_S = 0.5, 5.0
"""For how long the pace of a stream is measured, and within what time it has to be known."""
_STORED = "the feature store holds a moved value, bit for bit; or the pipeline has written past it"


@fault(
    needs=(Links, Features),
    evidence=_STORED,
    undo=UNDO,
    healing="a model for the new inputs; until then, refuse them or serve the last good snapshot",
    draw=drawn(columns="0", shifts="30"),
)
def covariate_shift(
    columns: str,
    shifts: str,
    shape: str = "sudden",
    over_records: int = 3000,
    link: str = LINK,
) -> dict[str, Json]:
    """Shift features of all records that pass ``link``: covariate drift.

    Args:
        columns: indices of features from 0 on, such as "0,3".
        shifts: how far each of them moves, in its own unit, such as "30,-2.5".
        shape: ``sudden``; ``gradual``: a little more with every record; ``recurring``: on and off.
        over_records: after how many records a gradual drift is complete; a recurring one is on for so many, and
            off for as many.
    """
    parameters = {"columns": list(columns_from(columns)), "shifts": _numbers("shifts", shifts)}
    course, pauses_s = _course(link, shape, over_records)
    return corrupt_records(
        "drift.covariate_shift",
        link,
        "covariate_shift",
        {**parameters, **course},
        proven_by=REACHED_STORE,
        rows_share=1.0,
        columns=columns_from(columns),
        pauses_s=pauses_s,
    )


@fault(
    needs=(Links, Features, Pipeline),
    evidence="the pipeline went past positions of which it read no record",
    undo=UNDO,
    healing="none: answers are right; a healer that acts is wrong",
    draw=drawn(),
)
def prior_shift(
    label: int = 0,
    share: float = 0.8,
    shape: str = "sudden",
    over_records: int = 3000,
    link: str = LINK,
) -> dict[str, Json]:
    """Change the class mix: drop a ``share`` of the records labelled ``label`` (prior shift).

    Args:
        shape, over_records: as of ``covariate_shift``.
    """
    course, pauses_s = _course(link, shape, over_records)
    return corrupt_records(
        "drift.prior_shift",
        link,
        "prior_shift",
        {"label": label, "share": share, **course},
        proven_by=[positions_skipped],
        rows_share=share,
        needs=[Pipeline],
        pauses_s=pauses_s,
    )


@fault(
    needs=(Links, Features, Feedback),
    evidence="an answer was compared with a label of the new concept",
    undo=UNDO,
    healing="only labels show it: train a new model",
    draw=drawn(column=0, at_least=45.0),
)
def concept_shift(
    column: int,
    at_least: float | None = None,
    at_most: float | None = None,
    share: float = 1.0,
    shape: str = "sudden",
    over_records: int = 3000,
    link: str = LINK,
) -> dict[str, Json]:
    """Change the concept: where a feature lies in a range, labels 0 and 1 of the records are swapped.

    The labels that come back for answers then show that answers are wrong by the new concept. Golden answers
    follow the old one, so the prober still counts them as right.

    Args:
        column: index of the feature that decides, from 0 on.
        at_least, at_most: the range, in the feature's unit; open at an end that is not given.
        share: of the records in the range.
        shape, over_records: as of ``covariate_shift``.
    """
    if at_least is None and at_most is None:
        raise UsageError("at_least, at_most: say in which range the labels change")
    course, pauses_s = _course(link, shape, over_records)
    return corrupt_records(
        "drift.concept_shift",
        link,
        "concept_shift",
        {
            "column": column,
            "at_least": at_least,
            "at_most": at_most,
            "share": share,
            **course,
        },
        proven_by=[changed_label_used],
        rows_share=share,
        columns=[column] if isinstance(column, int) else [],
        needs=[Feedback],
        pauses_s=pauses_s,
    )


@fault(
    needs=(Links, Features, Registry, Models),
    evidence=_STORED,
    undo=UNDO,
    healing="none: answers are right; a healer that acts is wrong",
    draw=drawn(),
)
def benign_shift(
    columns: str = "",
    size: float = 2.0,
    link: str = LINK,
) -> dict[str, Json]:
    """Shift features of all records by as much as leaves every known answer unchanged: benign drift.

    To find out how far that is, the fault asks the champion about every entity of the golden set and of the
    healer's canaries: it moves each feature by up to ``size`` of its spreads, alone and then together, as long as
    no answer changes.

    Args:
        columns: indices of features that may move, from 0 on, such as "0,3"; "" is all of them.
        size: in spreads of the feature among those entities: the range of its middle nine tenths over 3.29.

    Raises:
        Refusal: every move of these features changes an answer.
    """
    from monkeyproof.faults.drift.harmless import harmless_move

    numbers = columns_from(columns)
    check_link(current().target, link, protocol="http")
    for one in (Features, Registry, Models):
        require(current().target, one)
    move = harmless_move(current().target, numbers, size)
    parameters = {"columns": list(move), "shifts": list(move.values())}
    return corrupt_records(
        "drift.benign_shift",
        link,
        "covariate_shift",
        parameters,
        proven_by=REACHED_STORE,
        rows_share=1.0,
        columns=list(move),
    )


def _course(link: str, shape: str, over_records: int) -> tuple[dict[str, Json], float]:
    """A drift from the next record on (the pipeline knows the position), and how long it pauses, in s."""
    target = current().target
    check_link(target, link, protocol="http")
    check_rows("over_records", over_records, 1)
    pipeline = target.find(Pipeline) if shape == "sudden" else require(target, Pipeline)
    pauses_s = over_records / _pace(pipeline) if pipeline is not None and shape == "recurring" else 0.0
    start = pipeline.status().last_position + 1 if pipeline is not None else 0
    return {"shape": shape, "start_position": max(0, start), "over_records": over_records}, pauses_s


def _pace(pipeline: Pipeline) -> float:
    """How many records a second pass at this moment.

    Raises:
        Refusal: the stream does not move, so that a pause of the drift would look like a recovery.
    """
    clock = current().clock
    begun_s, last = clock.monotonic_s(), pipeline.status().last_position
    first: tuple[float, int] | None = None
    while (now_s := clock.monotonic_s()) - begun_s < _PACE_WITHIN_S:
        if (position := pipeline.status().last_position) != last:
            last = position
            # Records come in batches: from the moment that one came to the moment that another did.
            first = first or (now_s, position)
            if now_s - first[0] >= _PACE_OVER_S and position > first[1]:
                return (position - first[1]) / (now_s - first[0])
        clock.sleep_s(0.01)
    raise Refusal(
        f"the pipeline did not advance steadily for {_PACE_WITHIN_S:g} s, so the length of a pause is unknown",
        "find out what stops the stream, or choose another shape",
    )


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(one) for one in str(text).split(",")]
    except ValueError:
        raise UsageError(f'{name}: {text!r} are no numbers, such as "30,-2.5"') from None
