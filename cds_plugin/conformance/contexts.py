"""What is really accepted and proposed: asked of the listener's own entity, and of pynetdicom."""

from __future__ import annotations

from pynetdicom import build_context

from cds_plugin.config import Settings
from cds_plugin.receive.acceptor import ListenerEntity
from cds_plugin.receive.bounds import Bounds
from cds_plugin.receive.listener import listener_entity


def entity() -> ListenerEntity:
    """Return the listener's entity with the default settings."""
    return listener_entity(Settings(), Bounds())


def accepted(sop_class_uid: str) -> list[str]:
    """Return the transfer syntaxes in which the listener accepts a service that is not storage."""
    contexts = {str(each.abstract_syntax): each for each in entity().supported_contexts}
    return [str(syntax) for syntax in contexts[sop_class_uid].transfer_syntax]


def proposed(sop_class_uid: str) -> list[str]:
    """Return the transfer syntaxes that we propose for a service that is not storage."""
    return [str(syntax) for syntax in build_context(sop_class_uid).transfer_syntax]
