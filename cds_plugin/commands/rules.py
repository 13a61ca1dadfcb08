"""`cds-plugin rules`: what the rules would do with an object, and whether the file of them makes sense."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import pydicom
import typer

from cds_db.session import snapshot
from cds_db.studies import is_own_uid
from cds_plugin.caller import Caller
from cds_plugin.config import Action, Rule, Settings, load_settings
from cds_plugin.console import ConfigOption, Exit, JsonOption, guarded, print_json, stdout
from cds_plugin.database import opened_database
from cds_plugin.errors import CdsError
from cds_plugin.receive.explaining import Asked, Explanation, explain
from cds_plugin.rules import Finding, warnings
from cds_plugin.rules.deciding import forms, label
from cds_plugin.tls.reading import read_certificates

command = typer.Typer(no_args_is_help=True)


@command.callback()
def _group() -> None:
    """Say what would happen to an object and why; look for rules that can never match."""


@command.command("explain")
def explain_command(
    path: Annotated[Path, typer.Argument(help="A DICOM file.", exists=True, dir_okay=False)],
    calling: Annotated[str, typer.Option(help="The AE title of the caller (over the web: its name).")],
    address: Annotated[str, typer.Option("--from", metavar="ADDRESS", help="The IP address it calls from.")],
    called: Annotated[str | None, typer.Option(help="The AE title that it calls.")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Its client certificate (PEM).", exists=True, dir_okay=False)
    ] = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Say what the listener would do with a file from this caller, and why: each rule in turn."""
    guarded(lambda: _explain(path, calling, address, called, certificate, config, json))


@command.command("check")
def check_command(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show the rules in order; exit 1 where one of them can never match."""
    guarded(lambda: _check(load_settings(config), json))


def _explain(
    path: Path,
    calling: str,
    address: str,
    called: str | None,
    certificate: Path | None,
    config: Path | None,
    as_json: bool,
) -> None:
    settings = load_settings(config)
    tls = read_certificates(certificate)[0].identity if certificate else None
    caller = Caller(calling, address, settings.listener.ae_title if called is None else called, tls)
    found = _explanation(settings, path, caller)
    if as_json:
        print_json({"path": str(path), **found.as_json()})
    else:
        _show(_lines(found))


def _explanation(settings: Settings, path: Path, caller: Caller) -> Explanation:
    """Explain in a folder of its own; values that break the standard are not commented on (PS3.5)."""
    with (
        tempfile.TemporaryDirectory(prefix="cds-explain-") as folder,
        pydicom.config.disable_value_validation(),
    ):
        return explain(settings, path, caller, Path(folder), lambda uid: _is_own(settings, uid))


def _is_own(settings: Settings, sop_instance_uid: str) -> bool:
    """Return whether the UID stands in our results; without a database it does not."""
    try:
        with opened_database(settings) as engine, snapshot(engine) as session:
            return is_own_uid(session, sop_instance_uid)
    except CdsError:
        return False


def _lines(found: Explanation) -> Iterator[str]:
    door = found.door
    by = f" (rule {door.rule})" if door.rule else ""
    yield f"association: {door.answer}: {door.why}{by}"
    if found.facts is None:
        yield "object: no header can be read"
    else:
        yield "object: " + ", ".join(f"{name} {value!r}" for name, value in asdict(found.facts).items())
    reached = next((place for place, each in enumerate(found.asked, 1) if each.speaks), len(found.asked))
    for each in found.asked[:reached]:
        yield from _rule_lines(each)
    if reached < len(found.asked):
        yield f"not reached: {len(found.asked) - reached} more"
    yield from _verdict_lines(found)


def _rule_lines(asked: Asked) -> Iterator[str]:
    yield f"rule {asked.rule}: {'speaks' if asked.speaks else 'does not hold'}"
    yield from map(_finding_line, asked.conditions)


def _finding_line(finding: Finding) -> str:
    mark = {True: "yes", False: "no ", None: "?  "}[finding.holds]
    return f"    {mark} {finding.condition}: wants {' or '.join(finding.wanted)}, found {finding.found}"


def _verdict_lines(found: Explanation) -> Iterator[str]:
    told = found.as_json()
    if told["status"] is None:
        yield "answer: the association is rejected"
        return
    yield f"answer: {told['status']} {told['reason']}".rstrip()
    if told["repairs"]:
        yield f"repaired: {', '.join(told['repairs'])}; the bytes as sent are kept"
    if not told["analysed"]:
        yield f"analysed: no{': ' + told['reason_not_analysed'] if told['reason_not_analysed'] else ''}"
        return
    yield f"analysed: yes, {told['priority']}, {told['quiet_seconds']:g} s after the last image"
    routes = [f"{each['destination']} ({', '.join(each['form'])})" for each in told["results_to"]]
    yield f"results to: {', '.join(routes) or 'nobody'}"


def _check(settings: Settings, as_json: bool) -> int:
    found = list(warnings(settings))
    if as_json:
        print_json({"rules": len(settings.active_rules), "warnings": [asdict(each) for each in found]})
    else:
        _show(_rule_text(number, rule) for number, rule in enumerate(settings.active_rules, start=1))
        _show(f"warning: rule {each.rule} {each.problem}" for each in found)
    return Exit.FAILED if any(each.never for each in found) else Exit.DONE


def _rule_text(number: int, rule: Rule) -> str:
    when = ", ".join(f"{name} {' or '.join(map(str, wanted))}" for name, wanted in rule.conditions.items())
    what = str(rule.action)
    if rule.action is Action.ANALYSE:
        routes = [f"{each.destination} ({', '.join(forms(rule, each))})" for each in rule.results_to]
        what += f", {rule.priority}, results to {', '.join(routes) or 'nobody'}"
    repairs = f", repairs {', '.join(rule.repairs)}" if rule.repairs else ""
    return f"rule {label(rule, number)}: {when} -> {what}{repairs}"


def _show(lines: Iterator[str]) -> None:
    for line in lines:
        stdout.print(line, markup=False, highlight=False, soft_wrap=True)
