"""The earlier reports that a new one follows, as the results name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog

from cds_db.repeating import EarlierReport
from cds_plugin.elements import element_text
from cds_plugin.errors import CdsError
from cds_plugin.photograph import read_header
from cds_plugin.results.predecessors import Predecessor, Succession
from cds_plugin.sealing.vault import Vault

log = structlog.get_logger("worker")


def predecessors_of(vault: Vault, earlier: Sequence[EarlierReport]) -> tuple[Predecessor, ...]:
    """Return the predecessors; one whose series nobody knows any more is left out, and logged."""
    return tuple(_predecessors(vault, earlier))


def _predecessors(vault: Vault, earlier: Sequence[EarlierReport]) -> Iterator[Predecessor]:
    for each in earlier:
        series = each.series_instance_uid or _series_of(vault, each.path)
        if series is None:
            log.warning("predecessor-not-named", sop_instance_uid=each.sop_instance_uid)
            continue
        yield Predecessor(
            each.study_instance_uid,
            series,
            each.sop_class_uid,
            each.sop_instance_uid,
            Succession.REPLACES if each.same_picture else Succession.ADDS_TO,
            each.frame if each.same_picture else None,
        )


def _series_of(vault: Vault, path: str) -> str | None:
    """Return the series of a report that was recorded before its series was."""
    try:
        with vault.plain(path) as file:
            return element_text(read_header(file), "SeriesInstanceUID") or None
    except (CdsError, OSError):
        return None
