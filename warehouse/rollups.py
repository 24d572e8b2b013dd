"""The rollups by definition: what each counts, as expressions over one row of `events`.

Verification recounts by them, and a receipt names the rows that an event counts in. The views in `migrations/` say the
same in their own words, so that a slip in either shows.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Rollup:
    """A rollup's view, the table of its parts, its key and measures, and which events it counts.

    Every rollup also has `uniqueUsers`. The first key is the period, a date or an hour.
    """

    view: str
    parts: str
    keys: Mapping[str, str]
    measures: Mapping[str, str]
    where: str = "NOT bot"

    @property
    def period(self) -> str:
        """The key that is time."""
        return next(iter(self.keys))

    def selected_keys(self) -> str:
        """The key as a SELECT over events has it."""
        return ", ".join(name if name == text else f"{text} AS {name}" for name, text in self.keys.items())

    def selected_measures(self) -> str:
        """The measures as a SELECT over events has them."""
        return ", ".join(f"{text} AS {name}" for name, text in self.measures.items())


@dataclass(frozen=True, slots=True)
class _Names:
    """Columns of events that are a key under their own name."""

    names: tuple[str, ...]
    computed: Mapping[str, str] = field(default_factory=dict)

    def after(self, **period: str) -> Mapping[str, str]:
        return {**period, **{name: name for name in self.names}, **self.computed}


_DATE: Final = "toDate(timestamp)"
_CLICKS: Final = "countIf(eventAction = 'result_click')"
_RANKS: Final = "sumIf(JSONExtractUInt(properties, 'rank'), eventAction = 'result_click')"
_NO_RESULTS: Final = "JSONHas(properties, 'results') AND JSONExtractUInt(properties, 'results') = 0"
_HELPFUL: Final = "JSONExtractBool(properties, 'helpful')"

ROLLUPS: Final = (
    Rollup(
        view="aggregated_events",
        parts="daily_parts",
        keys=_Names(("companyId", "eventCategory", "eventAction", "app", "deviceType", "country")).after(date=_DATE),
        measures={"totalEvents": "count()"},
    ),
    Rollup(
        view="hourly_events",
        parts="hourly_parts",
        keys=_Names(("companyId", "eventCategory", "eventAction", "app")).after(
            hour="toStartOfHour(toDateTime(timestamp, 'UTC'))"
        ),
        measures={"totalEvents": "count()"},
    ),
    Rollup(
        view="searches",
        parts="search_parts",
        keys=_Names(("companyId", "app"), {"term": "lowerUTF8(trimBoth(JSONExtractString(properties, 'term')))"}).after(
            date=_DATE
        ),
        measures={
            "searches": "countIf(eventAction = 'search')",
            "failedSearches": f"countIf(eventAction = 'search' AND {_NO_RESULTS})",
            "clicks": _CLICKS,
            "averageRank": f"if({_CLICKS} = 0, NULL, {_RANKS} / {_CLICKS})",
        },
        where="NOT bot AND eventCategory = 'search' AND eventAction IN ('search', 'result_click')",
    ),
    Rollup(
        view="content",
        parts="content_parts",
        keys=_Names(
            ("companyId", "app"),
            {
                "contentType": "JSONExtractString(properties, 'contentType')",
                "contentId": "JSONExtractString(properties, 'contentId')",
            },
        ).after(date=_DATE),
        measures={
            "title": "max(JSONExtractString(properties, 'title'))",
            "views": "countIf(eventAction = 'view')",
            "helpful": f"countIf(eventAction = 'feedback' AND {_HELPFUL})",
            "notHelpful": f"countIf(eventAction = 'feedback' AND NOT {_HELPFUL})",
        },
        where="NOT bot AND eventCategory = 'content' AND eventAction IN ('view', 'feedback')",
    ),
    Rollup(
        view="features",
        parts="feature_parts",
        keys=_Names(("companyId", "app"), {"feature": "JSONExtractString(properties, 'feature')"}).after(date=_DATE),
        measures={"uses": "count()"},
        where="NOT bot AND eventCategory = 'feature' AND eventAction = 'use'",
    ),
)
