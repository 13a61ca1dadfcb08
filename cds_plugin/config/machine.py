"""What one installation stands on: folders, database, broker, bundles, device."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from cds_plugin.config.table import Table

EMBEDDED_BROKER = "embedded"


class Storage(Table):
    """The folder of incoming, spool, quarantine and results."""

    directory: Path = Field(Path("var"), description="a folder, relative to the settings file")


class Database(Table):
    """SQLite for the embedded default, PostgreSQL for production."""

    url: str = Field(
        "sqlite:///var/cds.db",
        pattern=r"^(sqlite:///|postgresql\+psycopg://)",
        description="sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE",
    )


class Broker(Table):
    """What wakes the workers."""

    url: str = Field(
        EMBEDDED_BROKER,
        pattern=r"^(embedded$|rediss?://|redis\+socket://|amqps?://)",
        description='"embedded", redis://..., redis+socket://... or amqp://...',
    )


class BundleFolder(Table):
    """Where the MONAI bundles lie; empty means those inside the package."""

    directory: str = Field(
        "", description="a folder of bundles with its manifest.json, or empty for those inside"
    )


class Worker(Table):
    """The device of a worker and the largest picture it takes."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description='"auto", "cpu" or "cuda:0"')
    max_pixels: int = Field(120_000_000, ge=1, description="rows x columns of the largest picture, 1 or more")
