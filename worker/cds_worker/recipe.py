"""The digest of everything but the picture that decides about its results: models, settings, software."""

from __future__ import annotations

import hashlib

from cds_db.columns import Json, canonical_json
from cds_plugin.config import Settings
from cds_plugin.results.identity import SOFTWARE_VERSION
from cds_plugin.study import Bundles, Sha256


def recipe_of(settings: Settings, bundles: Bundles) -> Sha256:
    """Return the digest; the same picture and the same recipe give the same findings."""
    ingredients: Json = {
        "software": SOFTWARE_VERSION,
        "bundles": [each.sha256 for each in bundles],
        "findings": settings.findings.model_dump(mode="json"),
        "results": settings.results.model_dump(mode="json"),
        "max_pixels": settings.worker.max_pixels,
    }
    return Sha256(hashlib.sha256(canonical_json(ingredients).encode()).hexdigest())
