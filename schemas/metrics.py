"""Every metric of the project, by part. The names here are the ones in the dashboards and alert rules.

Labels are of bounded number: tenants, reasons, routes, never ids.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

# Collector: from the HTTP request to the acknowledgement.
COLLECTOR_REQUESTS: Final = Counter("headrace_collector_requests_total", "Requests answered.", ["route", "status"])
COLLECTOR_REQUEST_SECONDS: Final = Histogram(
    "headrace_collector_request_seconds",
    "Seconds from a request's header to its answer, the log's acknowledgement included.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
COLLECTOR_BODY_BYTES: Final = Counter("headrace_collector_body_bytes_total", "Bytes of request bodies as sent.")
COLLECTOR_ACCEPTED: Final = Counter("headrace_collector_accepted_total", "Events accepted.", ["companyId"])
COLLECTOR_REJECTED: Final = Counter(
    "headrace_collector_rejected_total",
    "Events, or whole bodies, rejected into the dead letters.",
    ["companyId", "reason"],
)
COLLECTOR_REFUSED: Final = Counter(
    "headrace_collector_refused_total", "Requests refused of which nothing was stored.", ["reason"]
)
COLLECTOR_CONNECTIONS: Final = Gauge("headrace_collector_connections", "Connections that are open.")
COLLECTOR_CONNECTIONS_CLOSED: Final = Counter(
    "headrace_collector_connections_closed_total",
    "Connections closed because their client kept the collector waiting, by the limit that was reached.",
    ["limit"],
)

# Worker: from the log to the warehouse.
WORKER_RECORDS: Final = Counter("headrace_worker_records_total", "Records of the log that are stored and acknowledged.")
WORKER_EVENTS: Final = Counter("headrace_worker_events_total", "Events by what became of them.", ["outcome"])
WORKER_DEAD_LETTERS: Final = Counter("headrace_worker_dead_letters_total", "Dead letters stored.", ["reason"])
WORKER_LOOKUPS: Final = Counter(
    "headrace_worker_lookups_total",
    "Ids and visitors looked up in ClickHouse because memory does not reach back so far.",
)
WORKER_RETRIES: Final = Counter(
    "headrace_worker_retries_total", "Calls repeated because ClickHouse or the log was away."
)
WORKER_BLOCK_ROWS: Final = Histogram(
    "headrace_worker_block_rows",
    "Rows of events in a block.",
    buckets=(0, 1, 10, 100, 1_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000),
)
WORKER_FRESHNESS: Final = Histogram(
    "headrace_worker_freshness_seconds",
    "Seconds from the collector's receipt to the row in ClickHouse, of the first and last record of each block.",
    buckets=(0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60, 300, 3600),
)
WORKER_PARTITIONS: Final = Gauge("headrace_worker_partitions", "Partitions that the worker owns.")
WORKER_LAG_RECORDS: Final = Gauge(
    "headrace_worker_lag_records", "Records on the log that are not stored.", ["topic", "partition"]
)
WORKER_LAG_SECONDS: Final = Gauge(
    "headrace_worker_lag_seconds", "Age of the oldest record that is not stored.", ["topic", "partition"]
)
WORKER_PAUSED_PARTITIONS: Final = Gauge(
    "headrace_worker_paused_partitions",
    "1 while nothing is stored because too many events would become dead letters, else 0.",
    ["topic", "partition"],
)

# Collector: the journal on local disk, called the spool where it is written only while the log is away.
COLLECTOR_SPOOL_BYTES: Final = Gauge("headrace_collector_spool_bytes", "Bytes of records on local disk.")
COLLECTOR_SPOOL_RECORDS: Final = Gauge(
    "headrace_collector_spool_records", "Records on local disk that the log has not acknowledged."
)
COLLECTOR_SPOOL_AGE_SECONDS: Final = Gauge(
    "headrace_collector_spool_age_seconds",
    "Seconds since the oldest segment with records that the log has not acknowledged was begun; 0: there is none.",
)
COLLECTOR_LOG_AVAILABLE: Final = Gauge(
    "headrace_collector_log_available", "1 while the log acknowledges, 0 while it does not."
)
COLLECTOR_JOURNAL_SYNC_SECONDS: Final = Histogram(
    "headrace_collector_journal_sync_seconds",
    "Seconds of one fsync of the journal, shared by all requests that wait for it.",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
COLLECTOR_JOURNAL_EVENTS: Final = Gauge(
    "headrace_collector_journal_events",
    "Events ever accepted, by earlier processes of this journal's directory too; 0 where the journal is only a spool.",
)
