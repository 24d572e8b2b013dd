"""Settings of the worker."""

from pathlib import Path

from pydantic import Field

from schemas.settings import HeadraceSettings


class WorkerSettings(HeadraceSettings):
    """What `headrace worker` reads beside the common settings, the broker's and ClickHouse's."""

    worker_host: str = Field("127.0.0.1", description="address of the worker's web server")
    worker_port: int = Field(8704, description="port of the worker's web server: health and metrics")
    worker_name: str = Field(
        "",
        description="fixed name, in the ledger and as the group's static member; default: host and process id",
    )
    consumer_group: str = Field("headrace", description="consumer group of the workers")
    session_gap_minutes: float = Field(30, gt=0, description="a longer pause between two events begins a new session")
    block_linger_seconds: float = Field(
        0.7,
        gt=0,
        description=(
            "longest wait of a record before its block is written; three times that while records are late; dead "
            "letters wait until five seconds after the last ones"
        ),
    )
    block_max_bytes: int = Field(
        8_000_000,
        ge=1,
        description=(
            "bytes of records at which a block is written at once; unset, half as many again on an embedded log of one "
            "partition a worker"
        ),
    )
    blocks_at_once: int = Field(
        2,
        ge=1,
        description=(
            "blocks that a worker stores at a time, while those of its other partitions grow; more are smaller, cost "
            "more, and bring fresher data where ClickHouse is far away or has cores to spare; unset, 1 on an embedded "
            "log with several workers"
        ),
    )
    recent_ids_minutes: float = Field(60, gt=0, description="event ids younger than this are kept in memory")
    recent_ids_limit: int = Field(
        1_000_000, ge=1, description="event ids kept in memory for a partition, beside those of the last seconds"
    )
    recent_sessions_minutes: float = Field(120, gt=0, description="sessions that ended later than this are in memory")
    dead_share_limit: float = Field(
        0.5, gt=0, le=1, description="a partition pauses when more of its last events become dead letters; 1: never"
    )
    dead_share_events: int = Field(10_000, ge=1, description="so many events of a partition are looked at for that")
    group_session_seconds: float = Field(10, gt=1, description="a silent worker's partitions go to others after this")
    geo_file: Path | None = Field(None, description="MaxMind-format file of countries; none: the time zone tells")
    redact_keys: str = Field("", description="further property names whose values are redacted, separated by commas")
    redact_patterns: str = Field("", description="further regular expressions that are redacted, one a line")
    redact_url_parameters: str = Field("", description="further URL parameters that are redacted, separated by commas")
    faults_dir: Path | None = Field(
        None, description="for tests: folder whose files name points of a block at which the worker kills itself"
    )
