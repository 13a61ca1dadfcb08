"""doctor asks every peer whether it answers, in the way that it is pulled from."""

from __future__ import annotations

from archive import Archive, WebArchive
from drawn_objects import a_photograph
from ward import LOOPBACK, Ward

from cds_plugin.config import PeerEntry
from cds_plugin.demo.ports import free_ports
from cds_plugin.doctor import _peer, _web_peer


def test_a_peer_that_answers_and_one_that_does_not(ward: Ward) -> None:
    (port,) = free_ports(1)
    peer = PeerEntry(name="archive", ae_title="ARCHIVE", host=LOOPBACK, port=port)
    assert not _peer(ward.settings, peer, "peer").ok
    archive = WebArchive([a_photograph()])
    with Archive().listening(port), archive.listening() as url:
        assert _peer(ward.settings, peer, "peer").ok
        web = PeerEntry(name="web", ae_title="ARCHIVE", retrieve="wado-rs", web_url=url)
        assert _web_peer(ward.settings, web).ok
        archive.hooks["/studies"] = (401, {}, b"")
        finding = _web_peer(ward.settings, web)
    assert not finding.ok and finding.check == "peer web" and "401" in finding.detail
