"""Every scenario by the name that `--only` takes, in the order in which they run."""

from collections.abc import Callable, Mapping
from typing import Final

from bench.context import Bench
from bench.results import Result
from bench.scenarios import alone, end_to_end, freshness, growth, importing, profiles, recovery, soak

SCENARIOS: Final[Mapping[str, Callable[[Bench], list[Result]]]] = {
    "plain": end_to_end.run_plain,
    "gzip": end_to_end.run_gzip,
    "one": end_to_end.run_one,
    "alone": alone.run,
    "import": importing.run,
    "freshness": freshness.run,
    "bad": end_to_end.run_bad,
    "recovery": recovery.run,
    "workers": growth.run_workers,
    "visitors": growth.run_visitors,
    "rows": growth.run_rows,
    "profile": profiles.run,
    "soak": soak.run,
}
