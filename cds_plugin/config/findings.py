"""How the classifier's answers are read: the operating point at which a lesion is flagged."""

from __future__ import annotations

from pydantic import Field

from cds_plugin.config.table import Table


class Findings(Table):
    """Which malignancy flags a lesion, and from when on a lesion is called unlike those learned from."""

    sensitivity: float = Field(
        0.95, gt=0, lt=1, description="a sensitivity that the classification bundle offers, such as 0.95"
    )
    malignancy_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="0 to 1, instead of the bundle's threshold for that sensitivity",
    )
    ood_threshold: float = Field(
        0.99,
        ge=0,
        le=1,
        description="0 to 1: the out-of-distribution score from which on a lesion is unfamiliar",
    )
    use_patient_facts: bool = Field(
        False,
        description="whether the age, sex and body site that a header names change the probabilities",
    )
