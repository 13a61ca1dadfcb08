"""A database as files, and files as a database: one state of it, taken while everybody goes on.

SQLite has an online backup of its own. PostgreSQL's tables are copied out in one snapshot with COPY and come
back into a schema that the migrations made: no client tools, whose version would have to fit the server's.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql
from sqlalchemy import Connection, Engine, exists, inspect, make_url, select, text
from sqlalchemy.orm import Session

from cds_db.migrate import upgrade, upgrade_to
from cds_db.models import AuditEntry, AuditHead, Base, Instance, Result, Study
from cds_db.session import open_engine, snapshot

SQLITE_FILE = "cds.db"
SIDE_FILES = ("-wal", "-shm")
"""What SQLite keeps beside a database in use; those of another database would ruin it."""
VERSION_TABLE = "alembic_version"
GUARDED = ("audit", "audit_head")
"""Tables whose triggers refuse rows that are sealed already; their owner may load them all the same."""
TRIGGER_FUNCTION = "refuse_audit_change"
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Copied:
    """What was copied: the columns of each table (none for SQLite), the audit head, the rows' files.

    Paths are relative to the storage directory; a file that a retention rule let go is not among them.
    """

    engine: str
    columns: Mapping[str, tuple[str, ...]]
    sealed: int
    head: str
    files: tuple[str, ...]


def copy_out(engine: Engine, folder: Path) -> Copied:
    """Write one state of a database of this version's schema into an existing, empty folder."""
    if engine.dialect.name == "sqlite":
        return _copy_sqlite(engine, folder / SQLITE_FILE)
    with snapshot(engine) as session:
        columns = {table: _columns(session, table) for table in _tables()}
        for table, names in columns.items():
            _copy_table(session, table, names, folder / f"{table}.copy")
        return _copied(session, "postgresql", columns)


def copy_in(url: str, folder: Path, columns: Mapping[str, Sequence[str]], version: str) -> None:
    """Make a database of the copy in `folder`, in place of what is there, and bring it to this schema.

    `version` is the schema of the copy. SQLite's file is replaced in one step; PostgreSQL's is emptied, then
    made, then loaded: until this returns nobody else may work with it, and what is interrupted begins anew.
    """
    if make_url(url).get_backend_name() == "sqlite":
        _replace_sqlite(Path(str(make_url(url).database)), folder / SQLITE_FILE)
    else:
        _drop_everything(url)
        upgrade_to(url, version)
        _load(url, folder, columns)
    upgrade(url)


def is_empty(url: str) -> bool:
    """Return whether a database holds nothing of ours: no table, or no study and no audit row."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        return True
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            there = set(inspect(connection).get_table_names())
            kept = [each.__table__ for each in (Study, AuditEntry) if each.__tablename__ in there]
            return not any(connection.scalar(select(exists().select_from(each))) for each in kept)
    finally:
        engine.dispose()


def _copied(session: Session, engine: str, columns: Mapping[str, tuple[str, ...]]) -> Copied:
    head = session.scalars(select(AuditHead)).one()
    paths: set[str] = set()
    for place, subject in (
        (Instance.path, Instance),
        (Instance.original_path, Instance),
        (Result.path, Result),
    ):
        wanted = select(place).where(subject.purging_since.is_(None), place.is_not(None)).distinct()
        paths.update(path for path in session.scalars(wanted) if path)
    return Copied(engine, columns, head.seq, head.hash, tuple(sorted(paths)))


def _copy_sqlite(engine: Engine, target: Path) -> Copied:
    """Copy in one step: a writer that came between steps would have it begin anew, for ever."""
    with engine.connect() as connection, closing(sqlite3.connect(target)) as copy:
        source: Any = connection.connection.driver_connection
        source.backup(copy)
    copied = open_engine(f"sqlite:///{target}")
    try:
        with snapshot(copied) as session:
            found = _copied(session, "sqlite", {})
    finally:
        copied.dispose()
    with closing(sqlite3.connect(target)) as copy:
        copy.execute("PRAGMA journal_mode=DELETE")
    return found


def _replace_sqlite(database: Path, copy: Path) -> None:
    database.parent.mkdir(parents=True, exist_ok=True)
    for suffix in SIDE_FILES:
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    draft = database.with_name(f"{database.name}.restoring")
    with copy.open("rb") as source, draft.open("wb") as target:
        shutil.copyfileobj(source, target, CHUNK_BYTES)
        target.flush()
        os.fsync(target.fileno())
    draft.replace(database)


def _tables() -> list[str]:
    """Return our tables, those first that others refer to."""
    return [table.name for table in Base.metadata.sorted_tables]


def _columns(session: Session, table: str) -> tuple[str, ...]:
    return tuple(each["name"] for each in inspect(session.connection()).get_columns(table))


def _driver(connection: Connection) -> Any:
    """Return psycopg's connection, within the transaction that is open."""
    return connection.connection.driver_connection


def _statement(template: str, table: str, columns: Sequence[str] = ()) -> sql.Composed:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL(template).format(table=sql.Identifier(table), columns=names)


def _copy_table(session: Session, table: str, columns: Sequence[str], target: Path) -> None:
    statement = _statement("COPY {table} ({columns}) TO STDOUT", table, columns)
    driver = _driver(session.connection())
    with driver.cursor() as cursor, target.open("xb") as file, cursor.copy(statement) as rows:
        for chunk in rows:
            file.write(chunk)


def _drop_everything(url: str) -> None:
    engine = open_engine(url)
    try:
        with engine.begin() as connection, _driver(connection).cursor() as cursor:
            for table in (*_tables(), VERSION_TABLE):
                cursor.execute(_statement("DROP TABLE IF EXISTS {table} CASCADE", table))
            cursor.execute(_statement("DROP FUNCTION IF EXISTS {table}() CASCADE", TRIGGER_FUNCTION))
    finally:
        engine.dispose()


def _load(url: str, folder: Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Load every table in one transaction, and let each sequence go on behind the last row."""
    engine = open_engine(url)
    try:
        with engine.begin() as connection, _driver(connection).cursor() as cursor:
            for table in GUARDED:
                cursor.execute(_statement("ALTER TABLE {table} DISABLE TRIGGER USER", table))
            cursor.execute("DELETE FROM audit_head")
            for table in (each for each in _tables() if each in columns):
                _load_table(cursor, table, columns[table], folder / f"{table}.copy")
            for table in GUARDED:
                cursor.execute(_statement("ALTER TABLE {table} ENABLE TRIGGER USER", table))
            _set_sequences(connection, columns)
    finally:
        engine.dispose()


def _load_table(cursor: Any, table: str, columns: Sequence[str], source: Path) -> None:
    statement = _statement("COPY {table} ({columns}) FROM STDIN", table, columns)
    with source.open("rb") as file, cursor.copy(statement) as rows:
        while chunk := file.read(CHUNK_BYTES):
            rows.write(chunk)


def _set_sequences(connection: Connection, columns: Mapping[str, Sequence[str]]) -> None:
    for table, names in columns.items():
        if "id" not in names:
            continue
        sequence = connection.scalar(text("SELECT pg_get_serial_sequence(:table, 'id')"), {"table": table})
        if sequence is not None:
            last = f'SELECT setval(:sequence, (SELECT max(id) FROM "{table}"))'  # one of our own names
            connection.execute(text(last), {"sequence": sequence})
