"""A token that ClickHouse noted for rows it never stored: found, dropped, and no other."""

import shutil
import signal
from pathlib import Path

import httpx
import pytest

from headrace.embedded.clickhouse_tokens import drop_tokens_without_rows, tokens_without_rows
from tests.contract.clickhouse_fixture import EmbeddedClickHouse, running

TABLES = (
    "CREATE TABLE source (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100",
    "CREATE TABLE target (n SimpleAggregateFunction(sum, UInt64)) ENGINE = AggregatingMergeTree ORDER BY tuple() "
    "SETTINGS non_replicated_deduplication_window = 100",
    "CREATE MATERIALIZED VIEW view TO target AS SELECT count() AS n FROM source",
)


def ask(server: EmbeddedClickHouse, sql: str) -> str:
    answer = httpx.post(server.url, content=sql, timeout=60)
    answer.raise_for_status()
    return answer.text.strip()


def insert(server: EmbeddedClickHouse, number: int) -> httpx.Response:
    settings = {"insert_deduplication_token": f"t{number}", "deduplicate_blocks_in_dependent_materialized_views": "1"}
    return httpx.post(server.url, params=settings, content=f"INSERT INTO source VALUES ({number})", timeout=60)


def counts(server: EmbeddedClickHouse) -> tuple[str, str]:
    return ask(server, "SELECT count() FROM source"), ask(server, "SELECT sum(n) FROM target")


def newest_part(folder: Path, server: EmbeddedClickHouse, table: str) -> Path:
    name = ask(
        server,
        f"SELECT path FROM system.parts WHERE table = '{table}' AND active ORDER BY max_block_number DESC LIMIT 1",
    )
    part = Path(name)
    return part if part.is_absolute() else folder / part


@pytest.mark.parametrize("tables", [("source", "target"), ("target",)], ids=" and ".join)
def test_a_part_that_a_kill_kept_from_its_place_is_stored_by_the_repetition(
    tmp_path: Path, tables: tuple[str, ...]
) -> None:
    folder = tmp_path / "data"
    with running(folder) as server:
        for statement in (*TABLES, "SYSTEM STOP MERGES source", "SYSTEM STOP MERGES target"):
            ask(server, statement)
        assert [insert(server, number).status_code for number in (0, 1)] == [200, 200]
        # A kill between the token and the rename leaves a temporary folder, which the next start deletes.
        lost = [newest_part(folder, server, table) for table in tables]
        server.stop(signal.SIGKILL)
    for part in lost:
        shutil.rmtree(part)
    assert len(tokens_without_rows(folder)) == len(tables)
    with running(folder) as server:
        assert "a token without rows was dropped" in server.log.read_text()
        assert [insert(server, number).status_code for number in (0, 1, 1)] == [200] * 3
        assert counts(server) == ("2", "2")


def test_tokens_of_stored_merged_and_dropped_parts_stand(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with running(folder) as server:
        for statement in TABLES:
            ask(server, statement)
        for number in range(3):
            insert(server, number)
        ask(server, "OPTIMIZE TABLE source FINAL")
        insert(server, 3)
        ask(server, "ALTER TABLE source DELETE WHERE a = 1 SETTINGS mutations_sync = 1")
        server.stop(signal.SIGKILL)
    logs = {log: log.read_bytes() for log in folder.glob("store/*/*/deduplication_logs/*")}
    assert logs
    assert drop_tokens_without_rows(folder) == []
    assert {log: log.read_bytes() for log in logs} == logs


def write_log(folder: Path, name: str, content: str) -> Path:
    log = folder / "store" / "abc" / "abcdef" / "deduplication_logs" / name
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(content)
    return log


def test_half_a_line_is_cut_and_what_stands_before_it_is_kept(tmp_path: Path) -> None:
    log = write_log(tmp_path, "deduplication_log_1.txt", "1\tall_1_1_0\tall_1_2\n1\tall_2_2")
    (log.parent.parent / "all_1_1_0").mkdir()
    assert drop_tokens_without_rows(tmp_path) == ["store/abc/abcdef/deduplication_logs/deduplication_log_1.txt"]
    assert log.read_text() == "1\tall_1_1_0\tall_1_2\n"


def test_the_newest_token_is_sought_in_the_newest_log_that_has_one(tmp_path: Path) -> None:
    write_log(tmp_path, "deduplication_log_9.txt", "1\tall_1_1_0\tall_1_2\n")
    newest = write_log(tmp_path, "deduplication_log_10.txt", "1\tall_2_2_0\tall_3_4\n1\t202609_3_3_0\t202609_5_6\n")
    write_log(tmp_path, "deduplication_log_11.txt", "")
    (newest.parent.parent / "all_3_3_0").mkdir()
    (newest.parent.parent / "tmp_insert_202609_3_3_0").mkdir()
    assert len(drop_tokens_without_rows(tmp_path)) == 1
    assert newest.read_text() == "1\tall_2_2_0\tall_3_4\n"


def test_a_server_whose_insert_left_a_token_without_rows_ends_and_the_repetition_stores_them(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with running(folder) as server:
        for statement in (*TABLES, "SYSTEM STOP MERGES source"):
            ask(server, statement)
        insert(server, 0)
        # The next part's place is taken by something that a rename cannot replace.
        blocked = newest_part(folder, server, "source").with_name("all_2_2_0")
        blocked.touch()
        with pytest.raises(httpx.TransportError):
            insert(server, 1)
        assert server.stop() == 1
    blocked.unlink()
    with running(folder) as server:
        assert insert(server, 1).status_code == 200
        assert counts(server) == ("2", "2")
