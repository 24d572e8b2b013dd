"""What the stored events take on ClickHouse's disk, once merged."""

from bench.stack import BenchStack

_TABLES = (
    "SELECT name FROM system.tables WHERE database = 'headrace' AND engine LIKE '%MergeTree' ORDER BY name "
    "FORMAT TabSeparated"
)
_BYTES = (
    "SELECT table, sum(bytes_on_disk) FROM system.parts WHERE database = 'headrace' AND active GROUP BY table "
    "ORDER BY table FORMAT TabSeparated"
)


def bytes_on_disk(stack: BenchStack) -> dict[str, int]:
    """Bytes of each table after a final merge."""
    for table in stack.ask(_TABLES).split():
        stack.ask(f"OPTIMIZE TABLE {table} FINAL")
    rows = (line.split("\t") for line in stack.ask(_BYTES).splitlines())
    return {table: int(size) for table, size in rows}
