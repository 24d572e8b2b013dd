"""Puts measured figures into the documents: what stands between two marks of a page is what the bench made."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.report import markdown_of
from bench.results import ROOT
from bench.sizing import costs_of, markdown_of_sizing

REFERENCE: Final = ROOT / "bench/results/reference.json"
PERFORMANCE: Final = ROOT / "docs/performance.md"
SIZING: Final = ROOT / "docs/guide/sizing.md"
_BETWEEN: Final = re.compile(r"(<!-- measured -->\n).*?(<!-- end -->\n)", re.DOTALL)

Document = Mapping[str, Any]


def read_results(file: Path) -> Document:
    """A file that the bench wrote."""
    document: Document = msgspec.json.decode(file.read_bytes())
    return document


def merge_results(documents: Sequence[Document]) -> Document:
    """The last sound run of each scenario, in the order of their first; of the machine as it was in the last file."""
    every = [result for document in documents for result in document["results"]]
    # Figures of a run that lost or doubled an event are no figures.
    results = {result["scenario"]: result for result in every if result["verify"] == 0 and not result["faults"]}
    return {"machine": documents[-1]["machine"], "results": list(results.values())}


def pages_of(document: Document) -> dict[Path, str]:
    """Both pages with these figures."""
    made = {
        PERFORMANCE: markdown_of(document["results"], document["machine"]),
        SIZING: markdown_of_sizing(costs_of(document["results"])),
    }
    return {path: _with(path.read_text(), text) for path, text in made.items()}


def _with(page: str, made: str) -> str:
    return _BETWEEN.sub(lambda found: f"{found[1]}\n{made}\n{found[2]}", page)
