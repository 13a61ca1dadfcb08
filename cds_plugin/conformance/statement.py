"""The whole page."""

from __future__ import annotations

from cds_plugin.conformance import (
    communication,
    configuration,
    model,
    objects,
    overview,
    security,
    services,
)
from cds_plugin.conformance.markdown import Section, contents
from cds_plugin.results.identity import MANUFACTURER, MODEL_NAME, SOFTWARE_VERSION


def statement() -> str:
    """Return the conformance statement in Markdown, in the order of PS3.2 annex N."""
    before = list(overview.sections())
    after = [
        *overview.introduction(),
        *model.sections(),
        *services.sections(),
        *configuration.sections(),
        *communication.sections(),
        *security.sections(),
        *objects.sections(),
    ]
    listed = Section("2", "Contents", (contents([*before, *after]),))
    return "\n\n".join([_cover(), *(each.text() for each in (*before, listed, *after))]) + "\n"


def _cover() -> str:
    return (
        f"# DICOM conformance statement of {MODEL_NAME}\n\n"
        f"Product: {MODEL_NAME} {SOFTWARE_VERSION}. Manufacturer: {MANUFACTURER}. Research use only, not for "
        "diagnosis.\n\n"
        f"Printed by `{MODEL_NAME} conformance`; do not edit it here."
    )
