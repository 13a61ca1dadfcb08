"""One frozen `Settings`, read once at an entry point from one TOML file and the environment."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from cds_plugin.config.findings import Findings
from cds_plugin.config.limits import Limits
from cds_plugin.config.listening import Listener
from cds_plugin.config.machine import EMBEDDED_BROKER, Broker, BundleFolder, Database, Storage, Worker
from cds_plugin.config.passwords import url_with_password
from cds_plugin.config.peers import PeerEntry
from cds_plugin.config.results import Results
from cds_plugin.config.retention import Retention
from cds_plugin.config.routing import Destination
from cds_plugin.config.rule import ANY_CALLER, Route, Rule
from cds_plugin.config.table import Table, is_loopback
from cds_plugin.config.transport import Tls
from cds_plugin.config.web import Web, WebCaller
from cds_plugin.errors import Refused

DEFAULT_FILE = Path("cds-plugin.toml")
ENVIRONMENT_PREFIX = "CDS_"
NESTING = "__"


class Settings(BaseSettings):
    """Everything a process may know about its surroundings; all paths are absolute."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter=NESTING
    )

    listener: Listener = Listener()
    tls: Tls = Tls()
    limits: Limits = Limits()
    storage: Storage = Storage()
    database: Database = Database()
    broker: Broker = Broker()
    bundles: BundleFolder = BundleFolder()
    worker: Worker = Worker()
    web: Web = Web()
    findings: Findings = Findings()
    results: Results = Results()
    retention: Retention = Retention()
    destinations: tuple[Destination, ...] = (
        Destination(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=4242),
    )
    peers: tuple[PeerEntry, ...] = ()
    rules: tuple[Rule, ...] | None = None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what `load_settings` hands in: it has merged file and environment already."""
        return (init_settings,)

    @property
    def active_rules(self) -> tuple[Rule, ...]:
        """Return the rules, or one for every caller to every destination where none is written."""
        if self.rules is not None:
            return self.rules
        everywhere = tuple(Route(destination=each.name) for each in self.destinations)
        return (Rule(calling_ae=(ANY_CALLER,), results_to=everywhere),)

    @model_validator(mode="after")
    def _urls_can_be_read(self) -> Self:
        for name, url in (("database", self.database.url), ("broker", self.broker.url)):
            try:
                url == EMBEDDED_BROKER or make_url(url)
            except (ArgumentError, ValueError) as error:
                hint = (Database if name == "database" else Broker).model_fields["url"].description
                raise ValueError(f"{name}.url: not a URL; expected {hint}") from error
        return self

    @model_validator(mode="after")
    def _destinations_are_known(self) -> Self:
        known = [each.name for each in self.destinations]
        if len(set(known)) != len(known):
            raise ValueError(f"destinations: names must differ, found {known}")
        for number, rule in enumerate(self.active_rules):
            for name in [route.destination for route in rule.results_to]:
                if name not in known:
                    raise ValueError(
                        f"rules[{number}].results_to: no destination is named {name!r}; known: {known}"
                    )
        return self

    @model_validator(mode="after")
    def _peers_differ(self) -> Self:
        names = [each.name for each in self.peers]
        if len(set(names)) != len(names):
            raise ValueError(f"peers: names must differ, found {names}")
        return self

    @model_validator(mode="after")
    def _strangers_stay_on_loopback(self) -> Self:
        open_to_all = any(rule.lets_strangers_in for rule in self.active_rules)
        if open_to_all and not is_loopback(self.listener.host):
            raise ValueError(
                f"listener.host: {self.listener.host!r} is beyond loopback while a rule says "
                'calling_ae = "*"; name every sender in [[rules]], or listen on 127.0.0.1'
            )
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        problem = self.tls.problem(self.listener.port)
        if problem is not None:
            raise ValueError(problem)
        for each in (*self.destinations, *self.peers):
            if each.tls and self.tls.authorities is None:
                raise ValueError(f"tls.authorities: needed to trust {each.name!r}, which says tls")
        return self

    @model_validator(mode="after")
    def _web_is_whole(self) -> Self:
        problem = self.web.problem(
            on_loopback=is_loopback(self.web.host),
            certificate=self.tls.certificate is not None,
            authorities=self.tls.authorities is not None,
        )
        if problem is not None:
            raise ValueError(problem)
        return self

    def redacted(self) -> dict[str, Any]:
        """Return the settings as JSON values with passwords hidden."""
        shown: dict[str, Any] = self.model_dump(mode="json")
        for name, url in (("database", self.database.url), ("broker", self.broker.url)):
            if url != EMBEDDED_BROKER:
                shown[name]["url"] = make_url(url).render_as_string(hide_password=True)
        for caller in shown["web"]["callers"]:
            caller["token_sha256"] = caller["token_sha256"] and "***"
        return shown


def load_settings(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of `path` (default: cds-plugin.toml here, else built-in ones) and the environment.

    Raises Refused that names the table and key and says what would be right.
    """
    surroundings = os.environ if environment is None else environment
    base, written = _read_file(path)
    _refuse_unknown_variables(surroundings)
    merged = _merge(written, _from_environment(surroundings))
    _refuse_nul("", merged)
    try:
        settings = Settings(**merged)
        return _with_secrets(_made_absolute(settings, base), surroundings)
    except ValidationError as error:
        raise Refused("bad_setting", explained(error), "Correct the setting.") from error


def settings_file(path: Path | None) -> Path | None:
    """Return the file that `load_settings` reads, None where there is none."""
    return (path or DEFAULT_FILE).resolve() if path is not None or DEFAULT_FILE.exists() else None


def explained(error: ValidationError) -> str:
    """Return what is wrong with settings, by table and key."""
    return "; ".join(map(_explain, error.errors()))


def _refuse_nul(place: str, value: Any) -> None:
    """Refuse a NUL character anywhere: no path, address or name has one, and system calls fail on it."""
    if isinstance(value, str) and "\0" in value:
        raise Refused("bad_setting", f"{place}: holds a NUL character", "Write it without.")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_nul(f"{place}.{key}".lstrip("."), inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_nul(f"{place}[{number}]", inner)


def _read_file(path: Path | None) -> tuple[Path, dict[str, Any]]:
    file = settings_file(path)
    if file is None:
        return Path.cwd(), {}
    try:
        return file.parent, tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(
            "no_settings_file", f"{file}: {error.strerror}", "Give a readable file to --config."
        ) from error
    except (ValueError, RecursionError) as error:
        raise Refused("bad_settings_file", f"{file}: {error}", "Write valid TOML.") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    source = EnvSettingsSource(Settings)
    source.env_vars = {key.lower(): value for key, value in environment.items()}
    try:
        return source()
    except (ValueError, RecursionError) as error:
        raise Refused("bad_setting", f"environment: {error}", "Write lists and tables as JSON.") from error


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    tables = [name for name in Settings.model_fields if name not in ("destinations", "peers", "rules")]
    for variable in environment:
        upper = variable.upper()
        if not upper.startswith(ENVIRONMENT_PREFIX) or NESTING not in upper:
            continue
        table = upper.removeprefix(ENVIRONMENT_PREFIX).split(NESTING)[0].lower()
        if table not in tables:
            raise Refused(
                "bad_setting", f"environment {variable}: no table {table!r}", f"Known: {', '.join(tables)}."
            )


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _made_absolute(settings: Settings, base: Path) -> Settings:
    database, broker = settings.database, settings.broker
    database_url = url_with_password("database", database.url, _below(base, database.password_file))
    broker_url = url_with_password("broker", broker.url, _below(base, broker.password_file))
    bundles = settings.bundles.directory and str((base / settings.bundles.directory).resolve())
    return settings.model_copy(
        update={
            "tls": settings.tls.below(base),
            "storage": settings.storage.below(base),
            "database": database.model_copy(update={"url": _absolute_url(database_url, base)}),
            "broker": broker.model_copy(update={"url": broker_url}),
            "bundles": settings.bundles.model_copy(update={"directory": bundles}),
            "peers": tuple(each.below(base) for each in settings.peers),
            "destinations": tuple(each.below(base) for each in settings.destinations),
        }
    )


def _below(base: Path, file: Path | None) -> Path | None:
    return None if file is None else (base / file).resolve()


def _with_secrets(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """Return the settings with what destinations want from the environment."""
    return settings.model_copy(
        update={"destinations": tuple(_with_secret(each, environment) for each in settings.destinations)}
    )


def _with_secret(destination: Destination, environment: Mapping[str, str]) -> Destination:
    """Only the process that sends needs the variable: who sends without it says so then."""
    value = environment.get(destination.authorization_variable, "").strip()
    if not value or not value.isascii() or "\n" in value:
        return destination
    return destination.model_copy(update={"authorization_value": SecretStr(value)})


def _absolute_url(url: str, base: Path) -> str:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return url
    return parsed.set(database=str((base / parsed.database).resolve())).render_as_string(hide_password=False)


def _explain(error: ErrorDetails) -> str:
    names = [str(part) for part in error["loc"]]
    where = ".".join(names)
    fields = _fields_at(names[:-1])
    if error["type"] == "extra_forbidden":
        close = difflib.get_close_matches(names[-1], fields, n=1)
        meant = f"did you mean {close[0]!r}? " if close else ""
        return f"{where}: no such setting; {meant}known here: {', '.join(fields)}"
    if not names:
        return _message(error)
    if error["type"] in ("model_type", "model_attributes_type", "tuple_type"):
        return f"{where}: should be {_SHAPES[error['type']]}"
    key = next((name for name in reversed(names) if not name.isdigit()), "")
    expected = fields[key].description if key in fields else None
    return f"{where}: {_message(error)}" + (f"; expected {expected}" if expected else "")


_SHAPES = {
    "model_type": "a table of keys and values",
    "model_attributes_type": "a table of keys and values",
    "tuple_type": "a list",
}
"""What pydantic calls by the names of our classes."""


def _message(error: ErrorDetails) -> str:
    return error["msg"].removeprefix("Value error, ")


def _fields_at(names: list[str]) -> dict[str, Any]:
    tables: dict[str, type[Table]] = {
        "listener": Listener,
        "tls": Tls,
        "limits": Limits,
        "storage": Storage,
        "database": Database,
        "broker": Broker,
        "bundles": BundleFolder,
        "worker": Worker,
        "web": Web,
        "web.callers": WebCaller,
        "findings": Findings,
        "results": Results,
        "retention": Retention,
        "destinations": Destination,
        "peers": PeerEntry,
        "rules": Rule,
    }
    found = tables.get(".".join(names[:2])) or tables.get(names[0]) if names else None
    return dict((found or Settings).model_fields)
