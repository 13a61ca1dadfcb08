"""What one installation stands on: folders, database, broker, bundles, device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, model_validator

from cds_plugin.config.table import Table

EMBEDDED_BROKER = "embedded"


class Storage(Table):
    """The folder of incoming, spool, quarantine and results, and whether its files are sealed."""

    directory: Path = Field(Path("var"), description="a folder, relative to the settings file")
    encryption_key_file: Path | None = Field(
        None, description="a file of keys outside that folder; with it every file is sealed"
    )
    incoming_directory: Path | None = Field(
        None, description="a folder in memory where objects arrive before they are sealed"
    )

    @model_validator(mode="after")
    def _memory_only_before_sealing(self) -> Self:
        if self.incoming_directory is not None and self.encryption_key_file is None:
            raise ValueError("incoming_directory: has no effect without encryption_key_file")
        return self

    def below(self, base: Path) -> Storage:
        """Return it with absolute paths."""
        key, incoming = self.encryption_key_file, self.incoming_directory
        return Storage(
            directory=(base / self.directory).resolve(),
            encryption_key_file=base / key if key is not None else None,
            incoming_directory=base / incoming if incoming is not None else None,
        )


class Database(Table):
    """SQLite for the embedded default, PostgreSQL for production."""

    url: str = Field(
        "sqlite:///var/cds.db",
        pattern=r"^(sqlite:///|postgresql\+psycopg://)",
        description="sqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE",
    )
    password_file: Path | None = Field(
        None, description="a file with the password alone, in place of one in the URL"
    )


class Broker(Table):
    """What wakes the workers."""

    url: str = Field(
        EMBEDDED_BROKER,
        pattern=r"^(embedded$|rediss?://|redis\+socket://|amqps?://)",
        description='"embedded", redis://..., redis+socket://... or amqp://...',
    )
    password_file: Path | None = Field(
        None, description="a file with the password alone, in place of one in the URL"
    )


PublicKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{43}=$")]
"""An Ed25519 public key: base64 of 32 bytes."""
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


class BundleFolder(Table):
    """Where the MONAI bundles lie, empty for those inside the package; and who may vouch for them."""

    directory: str = Field(
        "", description="a folder of bundles with its manifest.json, or empty for those inside"
    )
    trusted_keys: tuple[PublicKey, ...] = Field(
        (), description="public keys that may sign bundles, beside ours; cds-plugin bundle keygen prints them"
    )
    revoked_keys: tuple[KeyId, ...] = Field(
        (), description="ids of keys whose signatures no longer count, ours included"
    )
    allow_unsigned: bool = Field(
        False, description="true to take bundles that no trusted key signed; it is audited"
    )


class Worker(Table):
    """The device of a worker and the largest picture it takes."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description='"auto", "cpu" or "cuda:0"')
    max_pixels: int = Field(120_000_000, ge=1, description="rows x columns of the largest picture, 1 or more")
