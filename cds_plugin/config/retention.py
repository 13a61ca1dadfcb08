"""How long files are kept; without a rule they stay for ever."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydantic import Field

from cds_db.retention import Limit, Limits
from cds_plugin.config.table import Table

LONGEST_DAYS = 36_500


class Retention(Table):
    """After how many days files are removed; rows and audit trail stay. Nothing that is still needed goes."""

    pictures_days: float | None = Field(
        None,
        gt=0,
        le=LONGEST_DAYS,
        description="days after its reception that the file of an object is removed, up to 36500",
    )
    results_days: float | None = Field(
        None,
        gt=0,
        le=LONGEST_DAYS,
        description="days after it was made that the file of a result is removed, up to 36500",
    )
    quarantine_days: float | None = Field(
        None,
        gt=0,
        le=LONGEST_DAYS,
        description="days after which an object in quarantine is removed, up to 36500",
    )
    keep_for_rerun: bool = Field(
        False, description="whether pictures stay until the newest models and settings have seen them"
    )
    keep_priors: bool = Field(
        False, description="whether the files stay that show a lesion as it was seen last"
    )
    automatic: bool = Field(False, description="whether the sweeper purges by itself, once an hour")

    @property
    def has_rule(self) -> bool:
        """Return whether anything is ever removed."""
        days = (self.pictures_days, self.results_days, self.quarantine_days)
        return any(each is not None for each in days)

    def limits(self, now: datetime) -> Limits:
        """Return what the rule means for pictures and results at `now`."""
        return Limits(
            pictures=self._limit("pictures_days", self.pictures_days, now),
            results=self._limit("results_days", self.results_days, now),
        )

    def _limit(self, key: str, days: float | None, now: datetime) -> Limit | None:
        if days is None:
            return None
        rule = f"{key} = {days:g}"
        return Limit(rule, now - timedelta(days=days), self.keep_for_rerun, self.keep_priors)
