"""What the parts of a running stack publish of the events on their way: accepted, spooled, lag."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx
from prometheus_client.parser import text_string_to_metric_families

from headrace.endpoints import Endpoints, default_port_base
from headrace.runfile import read_run_file
from schemas.topics import COLLECTED

_TIMEOUT: Final = 5.0


class PartUnavailable(Exception):
    """A part of the stack does not answer; the message names it and its address."""


class AcceptedUnknown(Exception):
    """The collector's figures do not reach back as far as the ledger."""


@dataclass(frozen=True, slots=True)
class Accepting:
    """What a collector says of itself: events accepted, records on its disk that the log has not; times in seconds."""

    by_process: int
    by_journal: int
    spooled: int
    started_at: float

    def accepted_since(self, first_received_at: float) -> int:
        """Events accepted since the ledger began; raises AcceptedUnknown.

        A journal counts over restarts. The process counts from its start, which is enough where nothing was received
        before it.
        """
        if self.by_journal > self.by_process or not first_received_at or self.started_at <= first_received_at:
            return max(self.by_journal, self.by_process)
        raise AcceptedUnknown(
            "The collector counts accepted events from its own start, and the ledger reaches further back; "
            "give the number with --accepted, or --accepted unknown to leave this check out."
        )


def read_accepting(collector_url: str) -> Accepting:
    """Ask the collector; raises PartUnavailable."""
    samples = read_samples("collector", collector_url)
    return Accepting(
        by_process=int(_sum(samples, "headrace_collector_accepted_total")),
        by_journal=int(_sum(samples, "headrace_collector_journal_events")),
        spooled=int(_sum(samples, "headrace_collector_spool_records")),
        started_at=_sum(samples, "process_start_time_seconds"),
    )


@dataclass(frozen=True, slots=True)
class Lag:
    """Records of accepted events on the log that are not stored, and the age (s) of the oldest."""

    records: int
    seconds: float


def read_lag(urls: Iterable[str]) -> Lag:
    """Ask all workers; raises PartUnavailable where one does not answer."""
    records, seconds = 0, 0.0
    for url in urls:
        for name, labels, value in read_samples("worker", url):
            if labels.get("topic") == COLLECTED and name == "headrace_worker_lag_records":
                records += int(value)
            if labels.get("topic") == COLLECTED and name == "headrace_worker_lag_seconds":
                seconds = max(seconds, value)
    return Lag(records, seconds)


def worker_urls(endpoints: Endpoints, port_base: int | None) -> list[str]:
    """Every worker's address: the one known, and those that `headrace up` noted beside it."""
    url = urlsplit(endpoints.worker_url)
    noted = read_run_file(port_base or default_port_base())
    workers = noted["workers"] if noted else 1
    first = Endpoints.at(port_base or default_port_base()).worker_url
    if endpoints.worker_url != first or not url.port:
        return [endpoints.worker_url]
    return [f"{url.scheme}://{url.hostname}:{url.port + number}" for number in range(workers)]


_Samples = list[tuple[str, Mapping[str, str], float]]


def read_samples(part: str, url: str) -> _Samples:
    """Name, labels and value of everything on a part's metrics page; raises PartUnavailable."""
    try:
        answer = httpx.get(f"{url}/metrics", timeout=_TIMEOUT).raise_for_status()
        families = list(text_string_to_metric_families(answer.text))
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise PartUnavailable(f"The {part} at {url} does not tell its figures: {error}") from error
    return [(sample.name, sample.labels, sample.value) for family in families for sample in family.samples]


def _sum(samples: _Samples, name: str) -> float:
    return sum(value for sample, _, value in samples if sample == name)
