"""The paths of the web server."""

from __future__ import annotations

STUDIES_PATH = "/studies"
LIVE_PATH = "/health/live"
READY_PATH = "/health/ready"
