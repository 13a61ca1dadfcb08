"""Write the seeds of every target into its folder of kept inputs; run it after changing a seed."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "receive")]

from targets import CORPUS, TARGETS  # noqa: E402

for name, target in TARGETS.items():
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        digest = hashlib.sha256(seed).hexdigest()[:8]
        for old in folder.glob(f"seed-{number:02}-*"):
            old.unlink()
        (folder / f"seed-{number:02}-{digest}").write_bytes(seed)
