"""Keeps `alias_persons` what the pairs in `identity_aliases` make it.

The pairs of a tenant only grow, so a table computed from more of them is the newer one: workers need no agreement on
who computes, and a worker that dies in between leaves nothing to repair.
"""

from collections.abc import Callable, Mapping

from schemas.blocks import StoreUnavailable
from warehouse.client import ClickHouse, ClickHouseUnavailable


class ClickHouseAliases:
    """Recomputes the persons of the tenants whose pairs have grown."""

    def __init__(self, client: ClickHouse, merge: Callable[[list[tuple[str, str]]], Mapping[str, str]]) -> None:
        self._client = client
        self._merge = merge

    def update(self) -> int:
        """Bring every tenant up to date; returns how many were behind. Raises StoreUnavailable."""
        try:
            pairs = self._count("identity_aliases", "uniqExact(previousId, userId)")
            if not pairs:
                return 0
            known = self._count("alias_persons", "max(pairs)")
            behind = [company for company, count in pairs.items() if count > known.get(company, 0)]
            for company in behind:
                self._recompute(company)
        except ClickHouseUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        return len(behind)

    def _count(self, table: str, what: str) -> dict[str, int]:
        return dict(self._client.rows(f"SELECT companyId, {what} FROM {table} GROUP BY companyId"))

    def _recompute(self, company: str) -> None:
        pairs = self._client.rows(
            "SELECT DISTINCT previousId, userId FROM identity_aliases WHERE companyId = {company:String}",
            {"company": company},
        )
        persons = sorted(self._merge(pairs).items())
        rows = [(company, member, person, len(pairs)) for member, person in persons]
        names = ("companyId", "id", "person", "pairs")
        token = f"aliases/{company}/{len(pairs)}"
        self._client.insert("alias_persons", names, list(zip(*rows, strict=True)), token)
