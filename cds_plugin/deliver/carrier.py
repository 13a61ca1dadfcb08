"""The way to one destination: C-STORE or STOW-RS, as its settings say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeAlias

from cds_db.delivery import DEFAULT_RETRY
from cds_plugin.config import Destination, DestinationKind, Settings
from cds_plugin.deliver.sender import Answer, Outgoing, peer_of, send_files
from cds_plugin.deliver.stow import store_over_web
from cds_plugin.errors import Refused

OnAnswer: TypeAlias = Callable[[Answer], bool]
Carrier: TypeAlias = Callable[[Sequence[Outgoing], OnAnswer], None]
"""Sends files in order and tells of each answer until it is told to stop; raises Unavailable and Refused."""


def destination_of(settings: Settings, name: str) -> Destination:
    """Return the destination of that name. Raises Refused where the settings have none."""
    for each in settings.destinations:
        if each.name == name:
            return each
    raise Refused("unknown_destination", f"no destination is named {name!r}", "Add it to the settings.")


def retry_for(settings: Settings, name: str) -> timedelta:
    """Return how long that destination is tried, where no rule says it."""
    wanted = [each.retry_hours for each in settings.destinations if each.name == name]
    return timedelta(hours=wanted[0]) if wanted else DEFAULT_RETRY


def carrier_of(settings: Settings, destination: Destination) -> Carrier:
    """Return how objects get there."""
    if destination.kind is DestinationKind.DICOMWEB:
        return partial(store_over_web, settings, destination)
    peer, calling_ae = peer_of(settings, destination), settings.listener.ae_title

    def by_c_store(files: Sequence[Outgoing], on_answer: OnAnswer) -> None:
        send_files(files, peer, calling_ae, on_answer, recode=True)

    return by_c_store
