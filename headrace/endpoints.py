"""Where the parts of a stack listen: one port base, five ports."""

import os
from dataclasses import dataclass, replace
from typing import Final

from headrace.runfile import read_run_file

DEFAULT_PORT_BASE: Final = 8700
HOST: Final = "127.0.0.1"
#: A path of the embedded ClickHouse: what its clients sent and it has not begun, it does not begin.
DROP_REQUESTS: Final = "/drop-requests"


def default_port_base() -> int:
    """HEADRACE_PORT_BASE where it is set, else the default's."""
    return int(os.environ.get("HEADRACE_PORT_BASE", DEFAULT_PORT_BASE))


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The addresses of a stack's parts."""

    collector_url: str
    clickhouse_url: str
    broker: str
    worker_url: str

    @classmethod
    def at(cls, port_base: int) -> "Endpoints":
        """Those of `headrace up --port-base`: the five ports from there."""
        return cls(
            collector_url=f"http://{HOST}:{port_base}",
            clickhouse_url=f"http://{HOST}:{port_base + 2}",
            broker=f"{HOST}:{port_base + 3}",
            worker_url=f"http://{HOST}:{port_base + 4}",
        )

    @classmethod
    def noted(cls, port_base: int) -> "Endpoints":
        """Those of the stack that runs at the port base: its broker is where the stack noted."""
        note = read_run_file(port_base)
        return replace(cls.at(port_base), broker=note["broker"]) if note else cls.at(port_base)

    @classmethod
    def found(cls, port_base: int | None) -> "Endpoints":
        """Those of `port_base` where it is given; else the environment's HEADRACE_… addresses, else the default's."""
        if port_base is not None:
            return cls.noted(port_base)
        default = cls.noted(default_port_base())
        return cls(
            collector_url=os.environ.get("HEADRACE_COLLECTOR_URL", default.collector_url),
            clickhouse_url=os.environ.get("HEADRACE_CLICKHOUSE_URL", default.clickhouse_url),
            broker=os.environ.get("HEADRACE_BROKER", default.broker),
            worker_url=os.environ.get("HEADRACE_WORKER_URL", default.worker_url),
        )
