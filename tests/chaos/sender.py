"""A camera and its queue: sends studies for as long as it is asked to, and notes what was acknowledged."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

from studies import Sent, Stock, Study

from cds_plugin.deliver.sender import Answer, Peer, read_outgoing, send_files
from cds_plugin.demo.ports import LOOPBACK
from cds_plugin.errors import Unavailable

SUCCESS = 0x0000
AGAIN_SECONDS = 0.5
PICTURES = (1, 2, 3)
IDLE_SECONDS = 0.1


@dataclass
class Ledger:
    """What was acknowledged with Success, and every other answer; written by one thread for each sender."""

    studies: list[Study] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    returned: set[str] = field(default_factory=set)
    """SOP Instance UIDs of our own results that were sent back to us."""

    def acknowledged(self) -> list[Sent]:
        return [sent for study in self.studies for sent in study.acknowledged]


class Sender:
    """Sends study after study while few are under way; what fails is sent again until it is taken."""

    def __init__(
        self,
        name: str,
        port: int,
        stock: Stock,
        ledger: Ledger,
        may_begin: Callable[[], bool],
        seed: int,
        pictures: Sequence[int] = PICTURES,
    ) -> None:
        """`pictures`: how many a study has, each number as often."""
        self._name = name
        self._peer = Peer("CDS", LOOPBACK, port)
        self._stock = stock
        self._ledger = ledger
        self._may_begin = may_begin
        self._random = Random(seed)
        self._pictures = pictures
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._extra: list[tuple[Study, Sent]] = []
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, seconds: float) -> bool:
        """Begin no further study; return whether everything begun was taken within `seconds`."""
        self._over.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def also(self, study: Study, sent: Sent) -> None:
        """Send one more object of a study as soon as the one in hand is done."""
        with self._lock:
            self._extra.append((study, sent))

    def _run(self) -> None:
        while True:
            extra = self._next_extra()
            if extra is not None:
                self._send(extra[0], [extra[1]])
            elif self._over.is_set():
                return
            elif self._may_begin():
                study = self._stock.a_study(self._random.choice(self._pictures))
                self._ledger.studies.append(study)
                self._send(study, study.pictures)
            else:
                time.sleep(IDLE_SECONDS)

    def _next_extra(self) -> tuple[Study, Sent] | None:
        with self._lock:
            return self._extra.pop(0) if self._extra else None

    def _send(self, study: Study, objects: list[Sent]) -> None:
        """Send objects until each was acknowledged, as the queue of a PACS does."""
        missing = list(objects)
        while missing:
            waiting = {str(each.path): each for each in missing}

            def note(answer: Answer, waiting: dict[str, Sent] = waiting) -> bool:
                self._ledger.answers["none" if answer.status is None else f"0x{answer.status:04X}"] += 1
                if answer.status == SUCCESS:
                    study.acknowledged.append(waiting.pop(str(answer.outgoing.path)))
                return True

            try:
                send_files([read_outgoing(each.path) for each in missing], self._peer, self._name, note)
            except Unavailable as error:
                self._ledger.answers[error.code] += 1
            missing = list(waiting.values())
            if missing:
                time.sleep(AGAIN_SECONDS)
