"""A listener under attack: what a test may ask of it, and what must hold when the attack is over."""

from __future__ import annotations

from dataclasses import dataclass, field

from invariants import Watch, check_incoming, wait_for_threads
from pdus import ASSOCIATE_AC, associate_rq, photograph
from strangers import Stranger, echoes
from ward import Ward

from cds_db.models import Instance


@dataclass
class Siege:
    """One attack on a listener; `uid` is a SOP Instance UID that no other attack uses."""

    ward: Ward
    watch: Watch
    threads: int
    uid: bytes
    first: int = field(init=False)

    def __post_init__(self) -> None:
        self.first = len(self.ward.instances())

    @property
    def port(self) -> int:
        return self.ward.port

    @property
    def image(self) -> bytes:
        return photograph(self.uid)

    def instances(self) -> list[Instance]:
        """Return what was stored during this attack."""
        return self.ward.instances()[self.first :]

    def associated(self, request: bytes = b"") -> Stranger:
        """Return a stranger with an association."""
        stranger = Stranger(self.port)
        stranger.say(request or associate_rq())
        assert stranger.listen(until=1).kinds == (ASSOCIATE_AC,)
        return stranger

    def check_unharmed(self) -> None:
        """A C-ECHO is answered, no thread and no file is left, no traceback was said."""
        assert echoes(self.port)
        wait_for_threads(self.threads)
        check_incoming(self.ward)
        self.watch.check()
