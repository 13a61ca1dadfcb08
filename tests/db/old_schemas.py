"""Databases as older versions left them: tables, rows full of awkward values, and what changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Enum,
    Float,
    Inspector,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    select,
    text,
)

from cds_db.columns import Document, Instant, Words
from cds_db.models import Base

Row: TypeAlias = Mapping[str, Any]
SEALERS = frozenset({"seq", "previous_hash", "hash"})
"""Columns of `audit` that only the sealer writes."""
HEAD = "audit_head"
VERSION = "alembic_version"
EPOCH = datetime(2026, 1, 31, 23, 59, 59, 123_456, tzinfo=UTC)
AWKWARD = 'Größe "9 mm"\n\t\\ 皮膚 %s \x00 \ud800 ' + 300 * "x"


def tables_of(connection: Connection) -> dict[str, Table]:
    """Return the tables that the database has now, each with the columns that it has now, parents first.

    Types are those of the models: they are what an older version's code bound its values with.
    """
    inspector = inspect(connection)
    there, kept = set(inspector.get_table_names()), MetaData()
    return {
        model.name: Table(model.name, kept, *_columns(inspector, model))
        for model in Base.metadata.sorted_tables
        if model.name in there
    }


def _columns(inspector: Inspector, model: Table) -> Iterator[Column[Any]]:
    for found in inspector.get_columns(model.name):
        known = model.c[found["name"]]
        yield Column(known.name, known.type, primary_key=known.primary_key, autoincrement=known.autoincrement)


@dataclass
class Filled:
    """Puts rows into the tables of one version with only its columns, and remembers what stands there."""

    tables: Mapping[str, Table]
    rows: dict[str, list[Row]] = field(default_factory=dict)

    def insert(self, connection: Connection, numbers: Iterable[int]) -> None:
        """Insert a row of each number into each table, as the code of that version would."""
        for number in numbers:
            for name, table in self.tables.items():
                if name == HEAD:
                    continue
                made = insert(table).values(self._values(name, number)).returning(*table.c)
                self.rows.setdefault(name, []).append(dict(connection.execute(made).mappings().one()))

    def found(self, connection: Connection) -> dict[str, list[Row]]:
        """Return what the tables hold in the columns of that version, without what only the sealer writes."""
        return {
            name: [
                without_seal(name, row)
                for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()
            ]
            for name, table in self.tables.items()
            if name != HEAD
        }

    def expected(self) -> dict[str, list[Row]]:
        """Return what `found` should."""
        keys = {name: [each.name for each in table.primary_key] for name, table in self.tables.items()}
        return {
            name: sorted(
                (without_seal(name, row) for row in rows), key=lambda row: [row[k] for k in keys[name]]
            )
            for name, rows in self.rows.items()
        }

    def update(self, connection: Connection, position: int, number: int) -> None:
        """Give every column that neither is nor names a key the value of another number, one at a time."""
        for name, table in self.tables.items():
            if name in (HEAD, "audit"):
                continue
            row = dict(self.rows[name][position])
            same = [column == row[column.name] for column in table.primary_key]
            for column in table.c:
                known = Base.metadata.tables[name].c[column.name]
                if known.primary_key or known.foreign_keys:
                    continue
                row[column.name] = value_of(known, number)
                connection.execute(table.update().where(*same).values({column.name: row[column.name]}))
            stored = connection.execute(select(table).where(*same)).mappings().one()
            self.rows[name][position] = dict(stored)

    def delete(self, connection: Connection, position: int) -> None:
        """Delete the row at a position of each table, children first; the audit trail keeps its own."""
        for name, table in reversed(self.tables.items()):
            if name not in (HEAD, "audit"):
                row = self.rows[name].pop(position)
                connection.execute(
                    table.delete().where(*(column == row[column.name] for column in table.primary_key))
                )

    def _values(self, name: str, number: int) -> Row:
        values = {}
        for column in self.tables[name].c:
            known = Base.metadata.tables[name].c[column.name]
            generated = known is Base.metadata.tables[name].autoincrement_column
            if generated or (name == "audit" and column.name in SEALERS):
                continue
            values[column.name] = self._parent(known) if known.foreign_keys else value_of(known, number)
        return values

    def _parent(self, column: Column[Any]) -> Any:
        (key,) = column.foreign_keys
        return self.rows[key.column.table.name][-1][key.column.name]


def without_seal(name: str, row: Row) -> Row:
    """Return a row without what the sealer wrote."""
    return {key: value for key, value in row.items() if name != "audit" or key not in SEALERS}


def value_of(column: Column[Any], number: int) -> Any:
    """Return a value that only this number has; every other one is absent where it may be."""
    if column.nullable and number % 2 == 0:
        return None
    kind = column.type
    if isinstance(kind, Enum):
        return list(kind.enum_class or ())[number % len(kind.enums)]
    if isinstance(kind, String):
        return f"{number} {column.name} é".ljust(kind.length or 0, "皮")[: kind.length]
    make = next((make for type_, make in SAMPLES.items() if isinstance(kind, type_)), None)
    assert make is not None, f"{column} has a type without a sample: {kind!r}"
    return make(number)


SAMPLES: Mapping[type, Callable[[int], Any]] = {
    Instant: lambda number: EPOCH + timedelta(days=number, microseconds=number),
    Document: lambda number: {"päth": [number, 0.1, None, True], "a": {"z": "", "b": "\n"}},
    Words: lambda number: f"{number} {AWKWARD}",
    Boolean: lambda number: number % 2 == 1,
    BigInteger: lambda number: 2**40 + number,
    Integer: lambda number: number,
    Float: lambda number: number + 0.1,
    LargeBinary: lambda number: bytes(range(256)) + bytes([number]),
}
"""Type of column -> a value of it."""


Columns: TypeAlias = frozenset[str]


@dataclass(frozen=True)
class Shape:
    """What code relies on in a schema: (table, ...) -> what there is."""

    columns: Mapping[tuple[str, str], tuple[str, bool, bool]]
    """Type, whether NULL is allowed, whether the server has a default."""
    keys: Mapping[str, Columns]
    uniques: frozenset[tuple[str, Columns, str]]
    indexes: frozenset[tuple[str, Columns, str]]
    references: frozenset[tuple[str, Columns, str]]
    checks: frozenset[tuple[str, str]]
    triggers: Mapping[str, str]

    @property
    def tables(self) -> frozenset[str]:
        return frozenset(self.keys)


TRIGGERS = {
    "sqlite": "SELECT name, tbl_name || ': ' || sql FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname, tgrelid::regclass || ': ' || pg_get_triggerdef(oid) FROM pg_trigger "
    "WHERE NOT tgisinternal",
}


def shape_of(connection: Connection) -> Shape:
    """Return what the database has now."""
    inspector = inspect(connection)
    names = [name for name in inspector.get_table_names() if name != VERSION]
    indexes = [(name, each) for name in names for each in inspector.get_indexes(name)]
    uniques = {
        (name, frozenset(each["column_names"]), "")
        for name in names
        for each in inspector.get_unique_constraints(name)
    }
    return Shape(
        {
            (name, each["name"]): (str(each["type"]), each["nullable"], _has_default(each))
            for name in names
            for each in inspector.get_columns(name)
        },
        {name: frozenset(inspector.get_pk_constraint(name)["constrained_columns"]) for name in names},
        frozenset(uniques | {_indexed(name, each) for name, each in indexes if each["unique"]}),
        frozenset(_indexed(name, each) for name, each in indexes if not each["unique"]),
        frozenset(
            (
                name,
                frozenset(each["constrained_columns"]),
                f"{each['referred_table']}{each['referred_columns']}",
            )
            for name in names
            for each in inspector.get_foreign_keys(name)
        ),
        frozenset(
            (name, each["sqltext"]) for name in names for each in inspector.get_check_constraints(name)
        ),
        {row[0]: row[1] for row in connection.execute(text(TRIGGERS[connection.dialect.name]))},
    )


def _has_default(column: Any) -> bool:
    return column["default"] is not None or bool(column.get("autoincrement") is True)


def _indexed(table: str, index: Any) -> tuple[str, Columns, str]:
    where = [str(value) for key, value in index.get("dialect_options", {}).items() if key.endswith("_where")]
    return table, frozenset(name for name in index["column_names"] if name), "".join(where)


def broken_for_old_code(before: Shape, after: Shape) -> list[str]:
    """Return what code written for `before` fails on in `after`; empty where it only adds."""
    old = before.tables
    said = [f"table {name} is gone" for name in old - after.tables]
    for (table, column), what in before.columns.items():
        now = after.columns.get((table, column))
        if now != what:
            said.append(f"{table}.{column}: {what} became {now}")
    for (table, column), (_, nullable, default) in after.columns.items():
        is_new = table in old and (table, column) not in before.columns
        if is_new and not nullable and not default:
            said.append(f"{table}.{column}: is new and demands a value")
    said += [
        f"key of {name} changed" for name, key in before.keys.items() if after.keys.get(name, key) != key
    ]
    said += [f"{each} may refuse rows" for each in after.uniques if _tightens(each, before, old)]
    said += [f"{each} is gone" for each in before.uniques if not _still_holds(each, after)]
    said += [f"index {each} is gone" for each in before.indexes - after.indexes]
    said += [f"{each} is gone" for each in before.references - after.references]
    said += [f"{each} may refuse rows" for each in after.references - before.references if each[0] in old]
    said += [f"{each} may refuse rows" for each in after.checks - before.checks if each[0] in old]
    said += [
        f"trigger {name} is gone or changed"
        for name, sql in before.triggers.items()
        if after.triggers.get(name) != sql
    ]
    new = {name: sql for name, sql in after.triggers.items() if name not in before.triggers}
    said += [f"trigger {name} may refuse rows" for name, sql in new.items() if sql.split(":")[0] in old]
    return said


def _tightens(unique: tuple[str, Columns, str], before: Shape, old: frozenset[str]) -> bool:
    """Return whether a constraint could refuse what an older one let in: one on more columns can't."""
    table, columns, where = unique
    wider = any(table == t and columns >= c and where == w for t, c, w in before.uniques)
    return table in old and not wider


def _still_holds(unique: tuple[str, Columns, str], after: Shape) -> bool:
    """Return whether a constraint is there, or one on those columns and new ones."""
    table, columns, where = unique
    return any(table == t and columns <= c and where == w for t, c, w in after.uniques)
