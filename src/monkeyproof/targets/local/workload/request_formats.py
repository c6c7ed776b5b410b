"""The input forms of MLflow's scoring protocol, as far as rows that name an entity need them.

{"dataframe_records": [{"entity": "a"}]}        {"dataframe_split": {"columns": ["entity"], "data": [["a"]]}}
{"instances": [{"entity": "a"}]}                {"inputs": {"entity": ["a"]}}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from monkeyproof.types import Json

MAX_ROWS = 1000
MAX_NAME = 128


def entities_of(body: bytes) -> Sequence[str]:
    """The entities that a request asks about.

    Raises:
        ValueError: the body has another form; the message says what was expected.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    present = [form for form in _FORMS if isinstance(request, dict) and form in request]
    if len(present) != 1:
        raise ValueError(f"expected a JSON object with exactly one of {', '.join(_FORMS)}")
    form = present[0]
    names = _FORMS[form](form, request[form])
    if not 0 < len(names) <= MAX_ROWS:
        raise ValueError(f"{form}: expected 1 to {MAX_ROWS} rows, got {len(names)}")
    for number, name in enumerate(names):
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
            raise ValueError(f"{form}, row {number}: entity must be a text of 1 to {MAX_NAME} characters")
    return names


def _records(form: str, value: Json) -> Sequence[Json]:
    if not isinstance(value, list):
        raise ValueError(f'{form}: expected a list of rows such as {{"entity": "shuttle-000123"}}')
    names = []
    for number, row in enumerate(value):
        if not isinstance(row, dict) or "entity" not in row:
            raise ValueError(f"{form}, row {number}: names no entity")
        names.append(row["entity"])
    return names


def _split(form: str, value: Json) -> Sequence[Json]:
    if (
        not isinstance(value, dict)
        or not isinstance(columns := value.get("columns"), list)
        or "entity" not in columns
    ):
        raise ValueError(f"{form}: expected columns, one of them entity, and data")
    place = columns.index("entity")
    rows = value.get("data")
    if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise ValueError(f"{form}: expected data as a list of rows with {len(columns)} values each")
    return [row[place] for row in rows]


def _columns(form: str, value: Json) -> Sequence[Json]:
    if isinstance(value, dict) and isinstance(names := value.get("entity"), list):
        return names
    return _records(form, value)


_FORMS: Mapping[str, Callable[[str, Json], Sequence[Json]]] = {
    "dataframe_records": _records,
    "dataframe_split": _split,
    "inputs": _columns,
    "instances": _columns,
}
