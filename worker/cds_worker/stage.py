"""One stage of the work on one picture: timed, and whatever fails in it is the picture's refusal."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

import structlog

from cds_plugin.discretion import places
from cds_plugin.errors import CdsError, Refused, Unavailable

log = structlog.get_logger("worker")


class StageFailed(Refused):
    """A stage raised what nobody expected: a model, or a library, can't do with this one picture."""

    def __init__(self, stage: str, kind: str) -> None:
        super().__init__(
            "stage_failed",
            f"The stage {stage} failed on this picture ({kind}).",
            "Report this with the log's line.",
        )
        self.stage = stage
        self.kind = kind

    def __reduce__(self) -> tuple[type[StageFailed], tuple[str, str]]:  # type: ignore[override]
        return type(self), (self.stage, self.kind)


class DeviceFailed(Unavailable):
    """Not even a drawn picture can be analysed: this process is of no use any more."""

    def __init__(self, failure: Refused) -> None:
        super().__init__(
            "device_failed",
            f"The models fail on every picture: {failure.message}",
            "The worker starts anew; look at its device.",
        )


@contextmanager
def stage(seconds: MutableMapping[str, float], name: str) -> Iterator[None]:
    """Add the seconds of the block under `name`; raise StageFailed for any error that is not ours."""
    start = time.perf_counter()
    try:
        yield
    except CdsError:
        raise
    except Exception as error:
        kind = type(error).__name__
        log.error("stage-failed", stage=name, error=kind, at=places(error))
        raise StageFailed(name, kind) from error
    seconds[name] = round(time.perf_counter() - start, 4)
