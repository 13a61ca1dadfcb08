"""What a peer may make a pull hold or wait for: every limit with its unit and its reason."""

from __future__ import annotations

from cds_plugin.receive.bounds import MEBIBYTE

STUDIES_PER_QUERY = 5_000
"""Studies of one day and modality: ten times a large hospital."""
SERIES_PER_STUDY = 2_000
INSTANCES_PER_STUDY = 50_000
"""Instances wanted from one study; a whole-body scan has some thousand."""
MATCH_BYTES = 256 * 1024
"""One C-FIND response with its few UIDs; some peers add elements that nobody asked for."""
MATCHES_WAITING = 100_000
"""C-FIND responses that arrived and were not read yet, about 200 MB of a peer gone mad."""
ANSWER_BYTES = 64 * MEBIBYTE
"""One DICOM JSON answer, held in memory: a page of it has some hundred kilobytes."""
PAGE = 500
"""Matches asked for in one QIDO-RS request."""
PAGES = 1_000
"""Requests of one QIDO-RS query: a server that never ends its list is left."""
UIDS_PER_REQUEST = 100
"""Instances named in one C-GET or C-MOVE: 6.5 kB, and what a broken association costs again at most."""
MOVE_SECONDS = 600.0
"""Silence of a peer that moves objects to our listener: it need not tell its progress."""
READ_SECONDS = 120.0
"""Silence of a web server: a PACS may bring an object back from its archive before it answers."""
OBJECT_SECONDS = 1_800.0
"""One object over HTTP from request to last byte: one gibibyte at 5 Mbit/s."""
TRIES = 3
"""Tries of one study while the peer breaks off; what came is not fetched again."""
TRY_AGAIN_SECONDS = 1.0
"""Before the second try of a study; twice as long before the third."""
PEER_AWAY_STUDIES = 3
"""After so many studies in a row for which the peer could not be reached the run ends."""
DAYS = 36_525
"""A range of dates of more than a century is a slip of the pen."""
