"""What a process keeps to its end is told to the garbage collector, which then looks at the rest in time.

CPython searches old objects only once those that came since are a quarter of all that it found there before,
and a part of ours keeps some hundred thousand objects of imported modules. So the deliverer had not searched
once after 700 deliveries, whose rings (pynetdicom's associations with their threads) made its memory grow.
"""

from __future__ import annotations

import gc


def keep_loaded() -> None:
    """Let everything that there is now count as kept for good. For entry points, once all is imported.

    A process that is forked later has it so too.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # only this one counts anew how much there is
