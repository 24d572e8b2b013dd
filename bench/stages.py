"""Which stage of the path a stack belongs to: the innermost frame that one of the stage's names begins or is in.

Compiled functions have no frame: what they use is the caller's.
"""

from collections.abc import Mapping
from typing import Final

from bench.traces import Stack

#: Program -> stage -> parts of `function (module)`. Stages are asked in this order for every frame, innermost first.
STAGES: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "worker": {
        "decode": ("(schemas.codec)", "(fastavro"),
        "redact": ("(streams.core.redact)",),
        "validate": ("(streams.core.validate)", "(schemas.catalog)", "(schemas.properties)", "(schemas.plan)"),
        "enrich": (
            "(streams.core.enrich)",
            "(streams.core.pages)",
            "(streams.user_agents)",
            "(streams.geo)",
            "_enrich",
            "complete_context",
        ),
        "dedupe": ("_put_new", "(streams.core.recent_ids)"),
        "sessionize": ("_sessionize", "_put_in_session", "(streams.core.sessions)"),
        "identify": ("_identity", "(streams.core.identity)"),
        "rows": ("(streams.core.rows)",),
        "prepare and settle, the rest": ("(streams.pipeline)", "(streams.prepared)"),
        "write to ClickHouse": ("(clickhouse_connect", "(warehouse.", "(urllib3"),
        "metrics": ("(prometheus_client",),
        "aiokafka": ("(aiokafka",),
        "Faust": ("(faust", "(mode.", "(streams.app)", "(streams.partitions)", "(streams.ledger_transport)"),
        "writer": ("(streams.writer)",),
        "event loop and threads": ("(asyncio", "(selectors)", "(uvloop", "(concurrent.futures", "(threading)"),
    },
    "collector": {
        "parse JSON": ("(collector.batch)",),
        "check the shape": ("(collector.checking)", "(pydantic", "(collector.times)", "(schemas.identifiers)"),
        "context": ("(collector.context)", "(collector.segment)"),
        "group": ("(collector.grouping)",),
        "encode Avro": ("(schemas.codec)", "(fastavro"),
        "verdicts and answer": ("(collector.answers)",),
        "metrics": ("(prometheus_client",),
        "journal": (
            "(collector.journal",
            "(collector.segment_file)",
            "(collector.segment_list)",
            "(collector.fresh_frames)",
        ),
        "send to the log": (
            "(collector.log_client)",
            "(collector.partition_queue)",
            "(collector.record_batch)",
            "(collector.broker_connections)",
            "(aiokafka",
            "(collector.forwarder)",
        ),
        "ask what is stored": ("(warehouse.", "(clickhouse_connect"),
        "HTTP protocol": ("(collector.event_protocol)", "(collector.connections)"),
        "request": ("(collector.",),
        "HTTP server": ("(uvicorn", "(starlette"),
        "event loop and threads": ("(asyncio", "(uvloop", "(concurrent.futures", "(threading)"),
    },
    "clickhouse": {
        "engine, in the request's thread": ("(chdb",),
        "HTTP interface": ("(headrace.embedded.", "(socketserver)", "(http.server)"),
    },
    "up": {"supervisor": ("(headrace.", "(aiokafka", "(asyncio")},
}


def stage_of(program: str, stack: Stack) -> str:
    """The stage, "elsewhere" where no frame is of any."""
    for frame in reversed(stack):
        for stage, names in STAGES[program].items():
            if any(name in frame for name in names):
                return stage
    return "elsewhere"
