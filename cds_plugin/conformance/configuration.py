"""Chapter 6: what can be configured, printed from the tables of the settings."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cds_plugin.config import (
    DEFAULT_FILE,
    Destination,
    Limits,
    Listener,
    PeerEntry,
    Rule,
    Table,
    Tls,
    Web,
    WebCaller,
)
from cds_plugin.conformance.markdown import Section, table

LOCAL: tuple[tuple[str, type[Table]], ...] = (
    ("[listener]", Listener),
    ("[tls]", Tls),
    ("[limits]", Limits),
    ("[web]", Web),
)
REMOTE: tuple[tuple[str, type[Table]], ...] = (
    ("[[rules]]", Rule),
    ("[[destinations]]", Destination),
    ("[[peers]]", PeerEntry),
    ("[[web.callers]]", WebCaller),
)
LARGEST_PORT = 65_535
"""Larger numbers are bytes, and easier to read in groups, as TOML allows them."""
HEAD = ("parameter", "default value", "meaning")


def sections() -> Iterator[Section]:
    """Yield chapter 6."""
    yield Section(
        "6",
        "Configuration",
        (
            f"One TOML file, `{DEFAULT_FILE}`; every key of a `[table]` can be overridden by an environment "
            "variable `CDS_<TABLE>__<KEY>`. Every parameter is set by the administrator (USER) and read at "
            "start. "
            "AE titles and addresses are mapped in these tables only; there is no LDAP.",
        ),
    )
    yield from _chapter("6.1", "Local parameters", LOCAL)
    yield from _chapter("6.2", "Remote parameters", REMOTE)


def _chapter(number: str, title: str, tables: tuple[tuple[str, type[Table]], ...]) -> Iterator[Section]:
    yield Section(number, title)
    for position, (heading, model) in enumerate(tables, start=1):
        yield Section(f"{number}.{position}", f"Table {heading}", (parameters(model),))


def parameters(model: type[Table]) -> str:
    """Return the keys of a table of the settings with default and meaning."""
    fields = [each for each in model.model_fields.items() if not each[1].exclude]
    return table(HEAD, [(f"`{key}`", _default(field), field.description or "") for key, field in fields])


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or value == "" or value == ():
        return "none"
    if isinstance(value, int) and value > LARGEST_PORT:
        return f"{value:_}"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
