"""Statements compiled once and handed to the driver itself: what runs for every object that comes in.

SQLAlchemy spends ten times what SQLite does on a small statement. These run on the DBAPI connection of its
transaction, so that everything else may take part in the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import ClauseElement, Connection, Dialect
from sqlalchemy.exc import DBAPIError

Converter = Callable[[Any], Any]
NOTHING: Mapping[str, Any] = {}
NAMED: Mapping[str, Mapping[str, Any]] = {"sqlite": {"paramstyle": "named"}}
"""Both drivers then take a mapping of values; psycopg's dialect says `%(name)s` by itself."""


class Transaction(Protocol):
    """What statements run in: a session, or `session.Writing`."""

    def connection(self) -> Connection:
        """Return its connection."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as its driver wants it, and what makes a driver's value of ours, by parameter."""

    text: str
    converters: Mapping[str, Converter | None]


class Prepared:
    """One statement whose values all come by name; `build` returns it for a dialect ("sqlite", ...)."""

    def __init__(self, build: Callable[[str], ClauseElement], columns: Sequence[str] | None = None) -> None:
        """`columns` are those that an INSERT fills."""
        self._build = build
        self._columns = columns
        self._compiled: dict[str, _Compiled] = {}

    def run(self, transaction: Transaction, values: Mapping[str, Any]) -> Any:
        """Execute it; return the driver's cursor, whose rows are tuples.

        Raises what SQLAlchemy would, without the values in its text. The driver's own types come back.
        """
        connection = transaction.connection()
        compiled = self._compiled.get(connection.dialect.name) or self._compile(connection)
        converted = {
            name: convert(values[name]) if convert is not None else values[name]
            for name, convert in compiled.converters.items()
        }
        return run_text(connection, compiled.text, converted)

    def _compile(self, connection: Connection) -> _Compiled:
        """Two threads may do so at once: the same comes out."""
        name = connection.dialect.name
        dialect = type(connection.dialect)(**NAMED.get(name, {}))
        statement: Any = self._build(name).compile(dialect=dialect, column_keys=self._columns)
        converters = {key: _converter(bind.type, dialect) for key, bind in statement.binds.items()}
        compiled = self._compiled[name] = _Compiled(str(statement), converters)
        return compiled


def run_text(connection: Connection, text: str, values: Mapping[str, Any] = NOTHING) -> Any:
    """Execute what the driver understands; return its cursor. Raises as `Prepared.run` does."""
    driver = connection.dialect.loaded_dbapi
    try:
        cursor = connection.connection.cursor()
        cursor.execute(text, values)
    except driver.Error as error:
        raise DBAPIError.instance(
            text, None, error, driver.Error, hide_parameters=True, dialect=connection.dialect
        ) from error
    return cursor


def _converter(kind: Any, dialect: Dialect) -> Converter | None:
    converter: Converter | None = kind.dialect_impl(dialect).bind_processor(dialect)
    return converter
