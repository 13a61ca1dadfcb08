"""What an attempt says about its destination as a whole: reached, or away once more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Engine

from cds_db import resting
from cds_db.session import snapshot, transaction
from cds_plugin import webserver
from cds_plugin.deliver.sender import GONE, REJECTED
from cds_plugin.errors import CdsError

NOT_REACHED = frozenset(("peer_away", "peer_busy", REJECTED, webserver.AWAY))
"""No association, no connection: the next delivery would fare the same, whatever it is about."""
REACHED = frozenset(
    (GONE, webserver.GONE, "web_failed", "web_refused", "web_unauthorised", "commitment_refused")
)
"""It was there and failed on this delivery: the object may be why, and others need not wait."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """Keeps count for one destination, in transactions of its own: its row is locked before any study's."""

    engine: Engine
    destination: str
    actor: str

    def reached(self) -> None:
        """Note that there was an answer, whatever it was."""
        with snapshot(self.engine) as session:
            if not resting.was_missed(session, self.destination):
                return
        with transaction(self.engine) as session:
            resting.record_reached(session, self.destination, now=datetime.now(UTC), actor=self.actor)

    def withdraw(self) -> None:
        """Note that nothing was tried after all: another delivery may."""
        with transaction(self.engine) as session:
            resting.withdraw(session, self.destination, datetime.now(UTC))

    def failed(self, error: CdsError) -> None:
        """Count a failure to reach it; what fails for another reason was reached."""
        if error.code in REACHED:
            self.reached()
        elif error.code in NOT_REACHED:
            with transaction(self.engine) as session:
                resting.record_missed(
                    session, self.destination, error.message, now=datetime.now(UTC), actor=self.actor
                )
