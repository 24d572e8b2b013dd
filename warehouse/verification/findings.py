"""What a check found: how much it compared, and the first differences in full."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: Differences kept in full of each check; further ones are counted.
FIRST: Final = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one row that is not what it should be."""

    check: str
    key: str
    field: str
    expected: str
    found: str


@dataclass(slots=True)
class Findings:
    """The outcome of one check. `notes` says what was left out, or is on its way."""

    check: str
    compared: int = 0
    differing: int = 0
    first: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether nothing differs."""
        return not self.differing

    def differ(self, key: str, name: str, expected: object, found: object) -> None:
        """Count a difference, and keep it if it is one of the first."""
        self.differing += 1
        if len(self.first) < FIRST:
            self.first.append(Difference(self.check, key, name, str(expected), str(found)))

    def compare(self, key: str, name: str, expected: object, found: object) -> None:
        """Count a difference where there is one."""
        self.compared += 1
        if expected != found:
            self.differ(key, name, expected, found)

    def compare_rows(
        self,
        keys: Sequence[str],
        measures: Sequence[str],
        expected: Mapping[tuple[Any, ...], tuple[Any, ...]],
        found: Mapping[tuple[Any, ...], tuple[Any, ...]],
    ) -> None:
        """Compare two tables that have this key and these measures."""
        self.compared += len(expected)
        for key, wanted in expected.items():
            row = found.get(key)
            if row == wanted:
                continue
            if row is None:
                self.differ(name_key(keys, key), "row", name_key(measures, wanted), "no row")
                continue
            for name, figure, other in zip(measures, wanted, row, strict=True):
                if figure != other:
                    self.differ(name_key(keys, key), name, figure, other)
        for key in found.keys() - expected.keys():
            self.differ(name_key(keys, key), "row", "no row", name_key(measures, found[key]))


def name_key(names: Sequence[str], values: Sequence[Any]) -> str:
    """A row's key for people."""
    return " ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
