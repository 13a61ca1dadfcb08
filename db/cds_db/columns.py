"""Column types that mean the same on SQLite and PostgreSQL: instants, strangers' text, canonical JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import DateTime, Dialect, Enum, String, Text
from sqlalchemy.types import TypeDecorator, TypeEngine

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
_Member = TypeVar("_Member", bound=StrEnum)

INSTANT_LENGTH = 27
"""2026-01-31T23:59:59.000000Z"""
ENUM_LENGTH = 16


def canonical_json(value: Json) -> str:
    """Return the one text of a JSON value: sorted keys, no spaces, ASCII; NaN raises ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def instant_text(value: datetime) -> str:
    """Return an aware datetime as UTC text of fixed width, which sorts as the instants do."""
    if value.tzinfo is None:
        raise ValueError(f"naive datetime {value!r}: hand in an aware one")
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _kept_instant_type(dialect: Dialect) -> TypeEngine[Any]:
    is_sqlite = dialect.name == "sqlite"
    return dialect.type_descriptor(String(INSTANT_LENGTH) if is_sqlite else DateTime(timezone=True))


class Instant(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite, which has no such type, keeps its text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return text for SQLite, a timestamp with time zone elsewhere."""
        return _kept_instant_type(dialect)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | datetime | None:
        """Refuse naive datetimes with ValueError."""
        if value is None:
            return None
        text = instant_text(value)
        return text if dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return UTC."""
        if value is None:
            return None
        return (datetime.fromisoformat(value) if isinstance(value, str) else value).astimezone(UTC)


class InstantText(TypeDecorator[str]):
    """Reads an Instant column as its canonical text, whatever somebody wrote into it."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return what the column really is."""
        return _kept_instant_type(dialect)

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        """Return the text; one that SQLite kept is handed on as it is."""
        return instant_text(value) if isinstance(value, datetime) else value


class Words(TypeDecorator[str]):
    """Text of any length from anywhere; what a database can't keep (NUL, lone surrogates) is escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return text that both engines store and give back unchanged."""
        return None if value is None else storable(value)


class Document(TypeDecorator[Mapping[str, Any]]):
    """A JSON object kept as its canonical text, so that a digest over the stored text is stable."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Mapping[str, Any] | None, dialect: Dialect) -> str | None:
        """Refuse what JSON can't say with ValueError or TypeError."""
        return None if value is None else canonical_json(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Mapping[str, Any] | None:
        """Return the parsed object."""
        return None if value is None else dict(json.loads(value))


def storable(value: str) -> str:
    """Return `value` with NUL and lone surrogates written as backslash escapes."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def enum_of(members: type[_Member]) -> Enum:
    """Return the column type of a StrEnum: its values as text, anything else refused."""
    return Enum(
        members,
        native_enum=False,
        create_constraint=False,
        length=ENUM_LENGTH,
        values_callable=lambda each: [member.value for member in each],
        validate_strings=True,
    )
