"""Deletes a version of the model so that it can be restored: MLflow itself deletes for ever.

Its server keeps the row of a deleted version, with its address and a few more columns overwritten. This target's
database is a copy of its own, so the row as it was is written back. Files are not touched by either.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from monkeyproof.errors import TargetError
from monkeyproof.targets.registry import RegistryClient
from monkeyproof.types import Json

BUSY_WITHIN_S = 5.0
_DELETED = "Deleted_Internal"
"""MLflow's stage of a version that it no longer lists."""


class LocalDeletion:
    """``port.Deletion`` on the MLflow server's SQLite database."""

    def __init__(self, database: Path, model: str, registry: RegistryClient) -> None:
        self._database = database
        self._model = model
        self._registry = registry

    def record(self, version: str) -> Mapping[str, Json]:
        with self._connection() as connection:
            row = self._row(connection, version)
            aliases = connection.execute(
                "SELECT * FROM registered_model_aliases WHERE name = ? AND version = ?",
                (self._model, int(version)),
            ).fetchall()
        if row is None or row["current_stage"] == _DELETED:
            raise TargetError(f"the registry has no version {version}")
        return {"row": dict(row), "aliases": [dict(one) for one in aliases]}

    def delete(self, version: str) -> None:
        self._registry.delete(version)

    def restore(self, version: str, record: Mapping[str, Json]) -> bool:
        row: Mapping[str, Json] = record["row"]
        with self._connection() as connection, connection:
            now = self._row(connection, version)
            if now is None:
                raise TargetError(f"the database has no row of version {version} any more")
            if now["current_stage"] != _DELETED:
                return False
            unknown = set(row) - set(now.keys())
            if unknown:
                raise TargetError(f"the database has no column {', '.join(sorted(unknown))}: it was made anew")
            names = ", ".join(f"{name} = ?" for name in row)
            # The names are columns of the table, as was just seen.
            connection.execute(
                f"UPDATE model_versions SET {names} WHERE name = ? AND version = ?",
                (*row.values(), self._model, int(version)),
            )
            for alias in record["aliases"]:
                # An alias that points elsewhere by now was set by another user.
                columns, places = ", ".join(alias), ", ".join("?" * len(alias))
                connection.execute(
                    f"INSERT OR IGNORE INTO registered_model_aliases ({columns}) VALUES ({places})",
                    tuple(alias.values()),
                )
        return True

    def _row(self, connection: sqlite3.Connection, version: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = connection.execute(
            "SELECT * FROM model_versions WHERE name = ? AND version = ?", (self._model, int(version))
        ).fetchone()
        return row

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if not self._database.exists():  # SQLite would create an empty one.
            raise TargetError(f"{self._database}: is not there")
        try:
            with closing(sqlite3.connect(self._database, timeout=BUSY_WITHIN_S)) as connection:
                connection.row_factory = sqlite3.Row
                yield connection
        except sqlite3.Error as error:
            raise TargetError(f"{self._database}: {error}") from None
