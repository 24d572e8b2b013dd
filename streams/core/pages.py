"""The fields of a context that say where an event happened: redacted, and filled in from each other.

Many events happen on one page, and nothing else of a context takes as long, so the latest pages are remembered.
"""

from collections.abc import Mapping
from functools import lru_cache
from operator import itemgetter
from typing import Final

from streams.core.enrich import PAGE_FIELDS, enrich_page
from streams.core.redact import FREE_FIELDS, RedactionPolicy, redact_context

#: Pages remembered, and the longest that is, in characters: a record may say far more of its page.
_REMEMBERED: Final = 4096
_LONGEST: Final = 8192
_FIELDS: Final = tuple(dict.fromkeys((*FREE_FIELDS, *PAGE_FIELDS)))
_values_of: Final = itemgetter(*_FIELDS)


class Pages:
    """`of` a context that has every field of CONTEXT_FIELDS gives those of its page, as they are stored."""

    def __init__(self, policy: RedactionPolicy) -> None:
        self._policy = policy
        self._completed = lru_cache(maxsize=_REMEMBERED)(self._complete)

    def of(self, context: Mapping[str, str]) -> Mapping[str, str]:
        """The fields to put in the place of the context's. Do not change the answer: it is remembered."""
        values: tuple[str, ...] = _values_of(context)
        return self._completed(values) if sum(map(len, values)) <= _LONGEST else self._complete(values)

    def _complete(self, values: tuple[str, ...]) -> Mapping[str, str]:
        page = redact_context(dict(zip(_FIELDS, values, strict=True)), self._policy)
        return {**page, **enrich_page(page)}
