"""Says what the real decoder makes of an input that ended the fuzzer's own process."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "receive")]

from picture_forms import FORMS  # noqa: E402

from cds_plugin.decoder import Decoder  # noqa: E402
from cds_plugin.errors import Refused  # noqa: E402
from cds_plugin.photograph.exchange import Kind  # noqa: E402


def verdict(name: str, data: bytes) -> str:
    """Return what became of a file in the child, which is all that it can harm."""
    request, content = FORMS[name].file(data)
    with tempfile.TemporaryDirectory() as folder, Decoder() as decoder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        try:
            if request.kind is Kind.PICTURE:
                decoder.decode_picture(path, request.max_pixels)
            else:
                decoder.decode(path, request.max_pixels, request.frame)
        except Refused as refusal:
            return f"contained: {refusal.code}"
    return "contained: decoded"


if __name__ == "__main__":
    print(verdict(sys.argv[1], Path(sys.argv[2]).read_bytes()))
