"""ClickHouse's HTTP interface as Headrace and its neighbours use it, through clickhouse-connect and plain HTTP.

Runs on the embedded server, or on the one HEADRACE_CLICKHOUSE_URL names.
"""

import contextlib
import gzip
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import httpx
import lz4.frame  # type: ignore[import-untyped]
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from headrace.embedded.clickhouse_codecs import from_blocks, to_blocks
from headrace.embedded.clickhouse_engine import MERGE_NICENESS
from headrace.embedded.clickhouse_errors import QueryError
from headrace.embedded.clickhouse_http import Server
from headrace.embedded.clickhouse_native import upgrade_native
from tests.contract.clickhouse_fixture import EmbeddedClickHouse, clickhouse_url, running
from tests.ports import free_port

NewClient = Callable[..., Any]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with clickhouse_url(tmp_path_factory.mktemp("clickhouse") / "data") as address:
        yield address


@pytest.fixture
def database(url: str) -> Iterator[str]:
    name = f"contract_{uuid.uuid4().hex}"
    httpx.post(url, content=f"CREATE DATABASE {name}").raise_for_status()
    yield name
    httpx.post(url, content=f"DROP DATABASE {name}").raise_for_status()


@pytest.fixture
def new_client(url: str, database: str) -> Iterator[NewClient]:
    clients = []

    def build(**options: Any) -> Any:
        address = urlsplit(url)
        options = {"host": address.hostname, "port": address.port, "database": database, "tz_mode": "aware", **options}
        clients.append(clickhouse_connect.get_client(interface="http", **options))
        return clients[-1]

    yield build
    for client in clients:
        client.close()


@pytest.fixture
def client(new_client: NewClient) -> Any:
    return new_client()


@pytest.fixture
def http(url: str, database: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, params={"database": database}, timeout=60) as session:
        yield session


def wait_for(condition: Callable[[], bool]) -> None:
    """Return once `condition` holds; the test's own timeout ends a wait that never does."""
    while not condition():
        time.sleep(0.1)


# Rows and types


ROW = {
    "s": "text ' \\ \n \t ünï \x00",
    "lc": "low",
    "n": None,
    "nlc": None,
    "dt": datetime(2026, 11, 24, 12, 0, 0, 123000, UTC),
    "d": datetime(2026, 11, 24, tzinfo=UTC).date(),
    "u": 2**64 - 1,
    "i": -(2**31),
    "f": 0.1,
    "a": ["x", "", "ü"],
    "an": [1, None],
    "m": {"k": "v", "": "e"},
    "id": uuid.UUID("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"),
    "t": (1, "one"),
    "e": "click",
    "b": True,
}
TABLE = """CREATE TABLE types (s String, lc LowCardinality(String), n Nullable(String),
  nlc LowCardinality(Nullable(String)), dt DateTime64(3, 'UTC'), d Date, u UInt64, i Int32, f Float64, a Array(String),
  an Array(Nullable(UInt8)), m Map(String, String), id UUID, t Tuple(UInt8, String), e Enum8('page'=1, 'click'=2),
  b Bool) ENGINE = MergeTree ORDER BY s"""


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_every_type_comes_back_as_it_went_in(new_client: NewClient, compress: Any) -> None:
    client = new_client(compress=compress)
    client.command(TABLE)
    client.insert("types", [list(ROW.values())] * 3, column_names=list(ROW))
    assert list(client.query("SELECT * FROM types").named_results()) == [ROW] * 3


def test_columns_go_in_and_out_as_columns(client: Any) -> None:
    client.command("CREATE TABLE c (a UInt64, s LowCardinality(String)) ENGINE = MergeTree ORDER BY a")
    summary = client.insert(
        "c", [list(range(70_000)), ["x", "y"] * 35_000], column_names=["a", "s"], column_oriented=True
    )
    assert summary.written_rows == 70_000
    assert client.query("SELECT sum(a), uniqExact(s) FROM c").result_rows == [(sum(range(70_000)), 2)]


def test_a_stream_of_blocks_is_whole(client: Any) -> None:
    with client.query_row_block_stream("SELECT number FROM numbers(300000)") as stream:
        assert sum(row[0] for block in stream for row in block) == sum(range(300_000))


def test_a_query_with_no_rows_has_an_empty_result(client: Any) -> None:
    assert client.query("SELECT 1 AS a WHERE 0").result_rows == []
    assert client.command("SELECT 'x' WHERE 0") == ""


def test_one_insert_of_many_blocks_becomes_one_part(client: Any) -> None:
    client.command("CREATE TABLE p (a UInt64) ENGINE = MergeTree ORDER BY a")
    block = client.raw_query("SELECT number AS a FROM numbers(50000)", fmt="Native", settings={"max_block_size": 1000})
    client.command("SYSTEM STOP MERGES p")
    client.raw_insert("p", ["a"], block * 4, fmt="Native")
    parts = client.query("SELECT count(), sum(rows) FROM system.parts WHERE database = currentDatabase()")
    assert parts.result_rows == [(1, 200_000)]


# Plain HTTP


def test_ping_and_the_root_answer_ok(http: httpx.Client) -> None:
    assert [http.get(path).text for path in ("/ping", "/", "/replicas_status")] == ["Ok.\n"] * 3
    assert http.head("/").status_code == 200


def test_merges_yield_to_inserts_and_queries(tmp_path: Path) -> None:
    query = "SELECT value FROM system.server_settings WHERE name = 'os_threads_nice_value_merge_mutate'"
    with running(tmp_path / "data") as server:
        assert httpx.post(server.url, content=query).text == f"{MERGE_NICENESS}\n"


def test_the_query_may_stand_in_the_url_the_body_or_both(http: httpx.Client) -> None:
    assert http.get("/", params={"query": "SELECT 1"}).text == "1\n"
    assert http.post("/", content="SELECT 1").text == "1\n"
    assert http.post("/", params={"query": "SELECT 1"}, content="+ 1").text == "2\n"


def test_an_insert_takes_its_data_from_the_url_the_body_or_both(http: httpx.Client) -> None:
    http.post("/", content="CREATE TABLE i (a UInt8, s String) ENGINE = MergeTree ORDER BY a")
    http.post("/", params={"query": "INSERT INTO i FORMAT JSONEachRow"}, content='{"a":1,"s":"FORMAT ; x"}\n{"a":2}')
    http.post("/", content="INSERT INTO i (a) FORMAT CSV\n3\n4\n")
    http.post("/", params={"query": "INSERT INTO i (a, s) VALUES"}, content="(5, 'five;'), (6, concat('s', 'ix'))")
    http.post("/", content="/* x */ INSERT INTO i VALUES (7, '--')")
    http.post("/", content="INSERT INTO i SELECT 8, 'eight'")
    rows = http.post("/", content="SELECT * FROM i ORDER BY a").text
    assert rows == "1\tFORMAT ; x\n2\t\n3\t\n4\t\n5\tfive;\n6\tsix\n7\t--\n8\teight\n"


def test_get_changes_nothing(http: httpx.Client) -> None:
    answer = http.get("/", params={"query": "CREATE TABLE g (a UInt8) ENGINE = Memory"})
    assert answer.headers["X-ClickHouse-Exception-Code"] == "164"


def test_an_answer_tells_its_format_and_what_it_cost(http: httpx.Client) -> None:
    answer = http.post("/", params={"query_id": "mine", "default_format": "JSONEachRow"}, content="SELECT 1 AS a")
    assert answer.text == '{"a":1}\n'
    assert answer.headers["X-ClickHouse-Query-Id"] == "mine"
    assert answer.headers["X-ClickHouse-Format"] == "JSONEachRow"
    assert answer.headers["X-ClickHouse-Timezone"]
    assert http.post("/", content="SELECT 1 FORMAT CSV").headers["X-ClickHouse-Format"] == "CSV"
    assert int(httpx.Response(200, text=answer.headers["X-ClickHouse-Summary"]).json()["elapsed_ns"]) > 0


@pytest.mark.parametrize("accept", ["gzip", "deflate"])
def test_an_answer_is_compressed_only_when_asked_for(http: httpx.Client, accept: str) -> None:
    query = {"query": "SELECT number FROM numbers(10000)"}
    plain = http.get("/", params=query, headers={"Accept-Encoding": accept})
    assert "Content-Encoding" not in plain.headers
    packed = http.get("/", params=query | {"enable_http_compression": "1"}, headers={"Accept-Encoding": accept})
    assert packed.headers["Content-Encoding"] == accept
    assert packed.text == plain.text
    assert packed.num_bytes_downloaded < len(plain.content)


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("lz4", lz4.frame.compress)])
def test_a_body_may_be_compressed(http: httpx.Client, encoding: str, pack: Callable[[bytes], bytes]) -> None:
    answer = http.post("/", content=pack(b"SELECT 'packed'"), headers={"Content-Encoding": encoding})
    assert answer.text == "packed\n"


def test_a_damaged_compressed_body_inserts_nothing(http: httpx.Client) -> None:
    http.post("/", content="CREATE TABLE z (a UInt32) ENGINE = MergeTree ORDER BY a")
    body = gzip.compress(b"".join(b"%d\n" % n for n in range(100_000)))
    query = {"query": "INSERT INTO z FORMAT TSV"}
    answer = http.post("/", params=query, content=body[: len(body) // 2], headers={"Content-Encoding": "gzip"})
    assert answer.status_code >= 400
    assert http.post("/", content="SELECT count() FROM z").text == "0\n"


def test_clickhouses_own_compression_works_both_ways(http: httpx.Client) -> None:
    http.post("/", content="CREATE TABLE own (a UInt32) ENGINE = MergeTree ORDER BY a")
    rows = b"".join(b"%d\n" % n for n in range(50_000))
    query = {"query": "INSERT INTO own FORMAT TSV", "decompress": "1"}
    assert http.post("/", params=query, content=to_blocks(rows)).status_code == 200
    answer = http.post("/", params={"compress": "1"}, content="SELECT a FROM own ORDER BY a")
    assert b"".join(from_blocks([answer.content])) == rows


def test_native_is_written_in_the_revision_a_go_client_asks_for(http: httpx.Client) -> None:
    query = "SELECT toUInt8(1) AS check, [('a', 1)] AS t FORMAT Native"
    answer = http.post("/", params={"client_protocol_version": "54460"}, content=query)
    assert answer.content.startswith(BLOCK_INFO + b"\x02\x01" + b"\x05check\x05UInt8\x00\x01")
    assert answer.content.endswith(b"\x01\x00\x00\x00\x00\x00\x00\x00\x01a\x01")


# Settings, parameters, sessions


def test_settings_hold_for_one_request_only(http: httpx.Client, client: Any) -> None:
    asked = "SELECT getSetting('max_threads')"
    before = http.post("/", content=asked).text
    assert http.post("/", params={"max_threads": "7"}, content=asked).text == "7\n"
    assert http.post("/", content=asked).text == before
    assert client.query(asked, settings={"max_threads": 7}).result_rows == [(7,)]
    assert client.query(asked).result_rows == [(int(before),)]


def test_a_setting_in_the_url_does_not_stay_in_the_session(http: httpx.Client) -> None:
    session = {"session_id": uuid.uuid4().hex}
    asked = "SELECT getSetting('max_threads'), currentDatabase()"
    http.post("/", params=session, content="SET max_threads = 5")
    assert http.post("/", params=session | {"max_threads": "7"}, content=asked).text.startswith("7\t")
    assert http.post("/", params=session | {"database": "system"}, content=asked).text == "5\tsystem\n"
    assert http.post("/", params=session | {"no_such_setting": "1"}, content=asked).status_code == 404
    assert http.post("/", params=session | {"database": "default"}, content=asked).text == "5\tdefault\n"


def test_a_session_keeps_its_temporary_table_to_itself(http: httpx.Client) -> None:
    session = {"session_id": uuid.uuid4().hex}
    http.post("/", params=session, content="CREATE TEMPORARY TABLE mine (a UInt8)")
    http.post("/", params=session, content="INSERT INTO mine FORMAT CSV\n1\n")
    assert http.post("/", params=session, content="SELECT * FROM mine").text == "1\n"
    assert http.post("/", content="SELECT * FROM mine").status_code == 404
    missing = {"session_id": uuid.uuid4().hex, "session_check": "1"}
    assert http.post("/", params=missing, content="SELECT 1").headers["X-ClickHouse-Exception-Code"] == "372"


def test_transport_settings_are_accepted(http: httpx.Client) -> None:
    transport = ["wait_end_of_query", "send_progress_in_http_headers", "enable_http_compression", "async_insert"]
    answer = http.post("/", params=dict.fromkeys(transport, "0") | {"quota_key": "k"}, content="SELECT 1")
    assert answer.text == "1\n"


def test_credentials_of_the_default_user_are_accepted(http: httpx.Client) -> None:
    assert http.post("/", content="SELECT 1", auth=("default", "")).text == "1\n"
    headers = {"X-ClickHouse-User": "default", "X-ClickHouse-Key": ""}
    assert http.post("/", content="SELECT 1", headers=headers).text == "1\n"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("String", "it's \\ a\ttab\nand ü"),
        ("UInt64", 2**64 - 1),
        ("Array(String)", ["a'b", "c\\d", ""]),
        ("Nullable(String)", None),
        ("DateTime64(3, 'UTC')", datetime(2026, 11, 24, 1, 2, 3, 456000, UTC)),
    ],
)
def test_query_parameters_arrive_unchanged(client: Any, kind: str, value: Any) -> None:
    assert client.query(f"SELECT {{p:{kind}}}", parameters={"p": value}).result_rows == [(value,)]


def test_parameters_too_long_for_a_url_go_in_a_form(new_client: NewClient) -> None:
    values = [f"value {n}" for n in range(20_000)]
    query = "SELECT length({p:Array(String)}), {p:Array(String)}[20000]"
    assert new_client().query(query, parameters={"p": values}).result_rows == [(20_000, "value 19999")]


# Errors


@pytest.mark.parametrize(
    ("query", "code", "status"),
    [
        ("SELEC 1", 62, 400),
        ("SELECT * FROM nope", 60, 404),
        ("SELECT nope", 47, 404),
        ("SELECT throwIf(1)", 395, 500),
        ("SELECT toUInt8('x')", 6, 400),
        ("SELECT 1 FORMAT Nope", 73, 404),
        ("INSERT INTO nope FORMAT TSV\n1\n", 60, 404),
        ("INSERT INTO nope.nope VALUES (1)", 81, 404),
        ("SELECT {p:UInt8}", 456, 500),
        ("SELECT sleepEachRow(1) FROM numbers(3) SETTINGS max_execution_time = 0.5, max_block_size = 1", 159, 408),
    ],
)
def test_an_error_has_clickhouses_code_and_status(http: httpx.Client, query: str, code: int, status: int) -> None:
    answer = http.post("/", content=query)
    assert (answer.headers["X-ClickHouse-Exception-Code"], answer.status_code) == (str(code), status)
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "(version " in answer.text


def test_an_error_is_compressed_like_an_answer(http: httpx.Client) -> None:
    framed = http.post("/", params={"compress": "1"}, content="SELECT nope")
    assert b"".join(from_blocks([framed.content])).startswith(b"Code: 47.")
    packed = http.post("/", params={"enable_http_compression": "1"}, content="SELECT nope")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.text.startswith("Code: 47.")


def test_an_unknown_setting_or_database_is_an_error(http: httpx.Client) -> None:
    codes = [
        http.post("/", params=bad, content="SELECT count() FROM t").headers["X-ClickHouse-Exception-Code"]
        for bad in ({"no_such_setting": "1"}, {"database": "no_such_database"}, {"max_threads": "many"})
    ]
    assert codes == ["115", "81", "27"]


def test_the_clients_exception_carries_the_code(client: Any) -> None:
    with pytest.raises(DatabaseError) as caught:
        client.query("SELECT * FROM nope")
    assert (caught.value.code, caught.value.name) == (60, "UNKNOWN_TABLE")


def test_a_connection_goes_on_after_an_error_in_the_middle_of_a_body(http: httpx.Client) -> None:
    http.post("/", content="CREATE TABLE e (a UInt8) ENGINE = MergeTree ORDER BY a")
    body = b"INSERT INTO e FORMAT TSV\nx\n" + b"1\n" * 2_000_000
    assert http.post("/", content=body).status_code == 400
    assert http.post("/", content="SELECT count() FROM e").text == "0\n"


# Exactly once


EVENTS = """CREATE TABLE ev (k UInt8, v UInt64, visitor UInt64 MATERIALIZED sipHash64(v)) ENGINE = MergeTree ORDER BY k
  SETTINGS non_replicated_deduplication_window = 1000"""
ROLLUP = """CREATE TABLE rollup (k UInt8, n SimpleAggregateFunction(sum, UInt64),
  visitors AggregateFunction(groupUniqArray, UInt64)) ENGINE = AggregatingMergeTree ORDER BY k
  SETTINGS non_replicated_deduplication_window = 1000"""
VIEW = """CREATE MATERIALIZED VIEW rollup_view TO rollup AS
  SELECT k, count() AS n, groupUniqArrayState(visitor) AS visitors FROM ev GROUP BY k"""


def test_a_repeated_insert_with_its_token_changes_neither_table_nor_view(client: Any) -> None:
    for statement in (EVENTS, ROLLUP, VIEW):
        client.command(statement)

    def insert(token: str) -> None:
        settings = {"insert_deduplication_token": token, "deduplicate_blocks_in_dependent_materialized_views": 1}
        client.insert("ev", [[1, 10], [1, 11]], column_names=["k", "v"], settings=settings)

    def counts() -> Any:
        rows = client.query(
            "SELECT (SELECT count() FROM ev), sum(n), length(groupUniqArrayMerge(visitors)) FROM rollup"
        )
        return rows.result_rows[0]

    insert("topic/0/0")
    insert("topic/0/0")
    assert counts() == (2, 2, 2)
    insert("topic/0/2")
    assert counts() == (4, 4, 2)
    client.insert("ev", [[1, 12]], column_names=["k", "v"])
    client.insert("ev", [[1, 13]], column_names=["k", "v"])
    assert counts() == (6, 6, 4)


def test_an_insert_whose_view_throws_fails_and_its_retry_fills_the_view(client: Any) -> None:
    window = "SETTINGS non_replicated_deduplication_window = 100"
    client.command("CREATE TABLE switch (refuse UInt8) ENGINE = MergeTree ORDER BY refuse")
    client.command("INSERT INTO switch VALUES (1)")
    for table in ("source", "target"):
        client.command(f"CREATE TABLE {table} (a UInt64) ENGINE = MergeTree ORDER BY a {window}")
    client.command(
        "CREATE MATERIALIZED VIEW failing TO target AS"
        " SELECT a + throwIf((SELECT max(refuse) FROM switch) = 1) AS a FROM source"
    )
    settings = {"insert_deduplication_token": "once", "deduplicate_blocks_in_dependent_materialized_views": 1}
    for form in (client.insert, lambda *_, **__: client.command("INSERT INTO source VALUES (1)", settings=settings)):
        with pytest.raises(DatabaseError) as caught:
            form("source", [[1]], column_names=["a"], settings=settings)
        assert caught.value.code == 395
    client.command("TRUNCATE TABLE switch")
    for _ in range(2):
        client.insert("source", [[1]], column_names=["a"], settings=settings)
    counts = client.query("SELECT (SELECT count() FROM source), (SELECT count() FROM target)")
    assert counts.result_rows == [(1, 1)]


def test_an_insert_takes_settings_and_parameters_in_its_text(http: httpx.Client) -> None:
    http.post("/", content="CREATE TABLE named (a UInt8, b UInt8) ENGINE = MergeTree ORDER BY a")
    query = {"query": "INSERT INTO {t:Identifier} (a, b) SETTINGS max_threads = 1, async_insert = 0 FORMAT CSV"}
    assert http.post("/", params=query | {"param_t": "named"}, content="1,2\n").status_code == 200
    assert http.post("/", content="SELECT * FROM named").text == "1\t2\n"
    assert http.post("/", params={"query": "INSERT INTO named FORMAT CSV"}, content="").status_code == 200


def test_the_first_of_many_claims_wins(client: Any, new_client: NewClient) -> None:
    client.command(
        "CREATE TABLE blocks (start UInt64, worker UInt8) ENGINE = MergeTree ORDER BY start"
        " SETTINGS non_replicated_deduplication_window = 1000"
    )

    def claim(worker: int) -> int:
        own = new_client(autogenerate_session_id=False)
        own.insert(
            "blocks", [[7, worker]], column_names=["start", "worker"], settings={"insert_deduplication_token": "7"}
        )
        found: int = own.query("SELECT worker FROM blocks WHERE start = 7").result_rows[0][0]
        return found

    with ThreadPoolExecutor(8) as pool:
        winners = set(pool.map(claim, range(8)))
    assert len(winners) == 1
    assert client.command("SELECT count() FROM blocks") == 1


# Many at once


def test_a_slow_query_holds_up_neither_inserts_nor_ping(http: httpx.Client, new_client: NewClient) -> None:
    http.post("/", content="CREATE TABLE w (a UInt64) ENGINE = MergeTree ORDER BY a")
    settings = {"max_block_size": "1", "function_sleep_max_microseconds_per_block": "10000000"}
    slow = threading.Thread(
        target=http.post, args=("/",), kwargs={"params": settings, "content": "SELECT sleepEachRow(1) FROM numbers(4)"}
    )
    slow.start()
    client = new_client()
    for n in range(20):
        client.insert("w", [[n]], column_names=["a"])
        assert client.ping()
    assert slow.is_alive()
    slow.join()


def test_readers_beside_a_writer_see_whole_inserts(new_client: NewClient) -> None:
    writer = new_client()
    writer.command("CREATE TABLE rw (a UInt64) ENGINE = MergeTree ORDER BY a")
    done = threading.Event()

    def read(_: int) -> list[int]:
        reader, seen = new_client(), [0]
        while not done.is_set():
            seen.append(reader.command("SELECT count() FROM rw"))
        return seen

    with ThreadPoolExecutor(4) as pool:
        readers = pool.map(read, range(4))
        for _ in range(30):
            writer.insert("rw", [[n] for n in range(1000)], column_names=["a"])
        done.set()
        counts = list(readers)
    assert all(seen == sorted(seen) and all(n % 1000 == 0 for n in seen) for seen in counts)
    assert writer.command("SELECT count() FROM rw") == 30_000


# What Headrace asks of the engine


def test_a_dictionary_follows_its_table_by_itself(client: Any) -> None:
    client.command("CREATE TABLE links (id UInt64, person String) ENGINE = MergeTree ORDER BY id")
    client.command("INSERT INTO links VALUES (1, 'one')")
    name = f"{client.database}.person_of"
    client.command(
        f"CREATE DICTIONARY {name} (id UInt64, person String DEFAULT '') PRIMARY KEY id"
        f" SOURCE(CLICKHOUSE(QUERY 'SELECT id, person FROM {client.database}.links'"
        f" INVALIDATE_QUERY 'SELECT count() FROM {client.database}.links'))"
        " LAYOUT(HASHED()) LIFETIME(MIN 1 MAX 2)"
    )
    assert client.command(f"SELECT dictGet('{name}', 'person', 1)") == "one"
    client.command("INSERT INTO links VALUES (2, 'two')")
    wait_for(lambda: client.command(f"SELECT dictGet('{name}', 'person', 2)") == "two")


def test_small_inserts_are_merged_in_the_background(client: Any) -> None:
    client.command("CREATE TABLE m (a UInt64) ENGINE = MergeTree ORDER BY a")
    for n in range(200):
        client.insert("m", [[n]], column_names=["a"], column_type_names=["UInt64"])
    parts = "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = 'm' AND active"
    wait_for(lambda: client.command(parts) < 100)
    assert client.command("SELECT count() FROM m") == 200


def test_views_recursion_mutations_and_explain_work(client: Any) -> None:
    client.command("CREATE TABLE x (a UInt64, d DateTime) ENGINE = MergeTree ORDER BY a TTL d + INTERVAL 1 MONTH")
    client.command("INSERT INTO x SELECT number, now() FROM numbers(10)")
    client.command("CREATE VIEW xv AS SELECT a FROM x WHERE a >= {least:UInt64}")
    assert client.command("SELECT count() FROM xv(least = 5)") == 5
    client.command("ALTER TABLE x DELETE WHERE a < 3", settings={"mutations_sync": 1})
    client.command("ALTER TABLE x UPDATE d = now() - INTERVAL 2 MONTH WHERE a = 9", settings={"mutations_sync": 1})
    client.command("OPTIMIZE TABLE x FINAL")
    assert client.command("SELECT count() FROM x") == 6
    recursive = "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT sum(n) FROM r"
    assert client.command(recursive) == 15
    assert "ReadFromMergeTree" in str(client.query("EXPLAIN SELECT * FROM x").result_rows)


# The embedded server as a process


def test_what_was_answered_is_there_after_kill_9_and_a_retry_does_not_double_it(tmp_path: Path) -> None:
    table = "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100"
    body = b"".join(b"%d\n" % n for n in range(100_000))

    def insert(url: str, number: int) -> None:
        query = {"query": "INSERT INTO t FORMAT TSV", "insert_deduplication_token": f"block {number}"}
        httpx.post(url, params=query, content=body).raise_for_status()

    with running(tmp_path / "data") as server:
        httpx.post(server.url, content=table).raise_for_status()
        for number in range(3):
            insert(server.url, number)
        server.stop(signal.SIGKILL)
    with running(tmp_path / "data") as server:
        insert(server.url, 2)
        answer = httpx.post(server.url, content="SELECT count(), sum(a) FROM t")
        assert answer.text == f"300000\t{3 * sum(range(100_000))}\n"
        insert(server.url, 3)
        assert httpx.post(server.url, content="SELECT count() FROM t").text == "400000\n"


def test_kill_9_in_the_middle_of_inserts_leaves_whole_inserts(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        httpx.post(server.url, content="CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a").raise_for_status()
        answered = 0
        threading.Timer(1.0, server.process.kill).start()
        while True:
            try:
                httpx.post(server.url, params={"query": "INSERT INTO t FORMAT TSV"}, content=b"1\n" * 5000)
            except httpx.TransportError:
                break
            answered += 1
        server.stop()
    assert answered
    with running(tmp_path / "data") as server:
        stored = int(httpx.post(server.url, content="SELECT count() FROM t").text)
    assert stored in (answered * 5000, (answered + 1) * 5000)


def test_half_a_body_inserts_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        httpx.post(server.url, content="CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a").raise_for_status()
        head = b"POST /?query=INSERT+INTO+t+FORMAT+TSV HTTP/1.1\r\nHost: localhost\r\n"
        for framing in (b"Content-Length: 4000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n1E8480\r\n"):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(head + framing + b"1\n" * 1_000_000)
        assert server.stop(signal.SIGTERM) == 0
    with running(tmp_path / "data") as server:
        assert httpx.post(server.url, content="SELECT count() FROM t").text == "0\n"


def test_sigterm_lets_a_running_query_finish(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(httpx.post, server.url, content="SELECT sleep(1.5), 'finished'", timeout=30)
        running_now = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep%'"
        wait_for(lambda: httpx.post(server.url, content=running_now).text == "1\n")
        assert server.stop(signal.SIGTERM) == 0
        assert slow.result().text == "0\tfinished\n"
        assert server.stdout == b""


def test_requests_that_are_dropped_are_not_begun_and_those_that_run_are_answered(tmp_path: Path) -> None:
    head = b"POST /?query=INSERT+INTO+t+FORMAT+TSV HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n"
    running_now = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sleep%'"
    with running(tmp_path / "data") as server, ThreadPoolExecutor(1) as pool, httpx.Client() as idle:
        idle.post(server.url, content="CREATE TABLE t (a UInt8) ORDER BY a").raise_for_status()
        slow = pool.submit(httpx.post, server.url, content="SELECT sleep(1.5), 'finished'", timeout=30)
        wait_for(lambda: httpx.post(server.url, content=running_now).text == "1\n")
        with socket.create_connection(("127.0.0.1", server.port)) as late:
            late.sendall(head + b"1\n")
            httpx.post(f"{server.url}/drop-requests").raise_for_status()
            with contextlib.suppress(ConnectionError):
                late.sendall(b"2\n")
                assert late.recv(100) == b""
        assert slow.result().text == "0\tfinished\n"
        assert idle.post(server.url, content="SELECT count() FROM t").text == "0\n"
        assert httpx.post(server.url, content="INSERT INTO t VALUES (3)").status_code == 200
        assert httpx.get(f"{server.url}/drop-requests").status_code == 404


@pytest.mark.parametrize("drops", [True, False])
def test_a_request_that_waits_for_its_turn_is_not_begun_once_it_is_dropped(tmp_path: Path, drops: bool) -> None:
    def begin(*_: Any) -> Any:
        begun.append(True)
        raise QueryError(1, "begun")

    begun, engine = list[bool](), SimpleNamespace(path=str(tmp_path), host="", timezone="", version="")
    sessions: Any = SimpleNamespace(connection=begin)
    with Server(free_port(), engine, sessions, 1) as server, ThreadPoolExecutor(1) as pool:  # type: ignore[arg-type]
        serving = pool.submit(server.serve_forever, 0.05)
        with socket.create_connection(server.server_address) as client:  # type: ignore[arg-type]
            with server.slots:
                client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nSELECT 1")
                if drops:
                    httpx.post(f"http://127.0.0.1:{server.server_port}/drop-requests").raise_for_status()
            answer = client.recv(100)
        server.shutdown()
        serving.result()
    assert (answer == b"", begun) == (drops, [] if drops else [True])


def test_a_taken_port_and_a_taken_folder_are_told_in_one_sentence(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        taken_folder = EmbeddedClickHouse(tmp_path / "data")
        assert taken_folder.process.wait(30) == 1
        taken_port = EmbeddedClickHouse(tmp_path / "other", server.port)
        assert taken_port.process.wait(30) == 1
        for ended in (taken_folder, taken_port):
            ended.stop()
    assert "is in use by another process" in (tmp_path / "data.log").read_text()
    assert (tmp_path / "other.log").read_text().splitlines() == [
        f"ClickHouse cannot listen on 127.0.0.1:{server.port}: Address already in use."
    ]


def test_a_folder_that_is_none_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    server = EmbeddedClickHouse(tmp_path / "file")
    assert server.process.wait(30) == 1
    server.stop()
    assert server.log.read_text().count("\n") == 1


def test_the_checksums_in_clickhouses_own_files_are_ours(tmp_path: Path) -> None:
    sizes = [*range(1, 40), 100, 127, 128, 129, 200, 257, 1000, 5000]
    with running(tmp_path / "data") as server:
        for size in sizes:
            create = f"CREATE TABLE t{size} (a FixedString({size})) ENGINE = MergeTree ORDER BY tuple()"
            options = {"allow_suspicious_fixed_string_types": "1"}
            create += " SETTINGS min_bytes_for_wide_part = 0"
            httpx.post(server.url, params=options, content=create).raise_for_status()
            fill = f"INSERT INTO t{size} SELECT randomFixedString({size})"
            httpx.post(server.url, content=fill).raise_for_status()
        files = [path.read_bytes() for path in (tmp_path / "data").rglob("a.bin")]
    assert sorted({len(b"".join(from_blocks([file]))) for file in files}) == sizes


def test_web_pages_of_other_sites_are_refused(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        for headers in ({"Origin": "https://example.com"}, {"Host": "example.com"}):
            assert httpx.post(server.url, content="SELECT 1", headers=headers).status_code == 403
        local = {"Origin": "http://localhost:3000"}
        assert httpx.post(server.url, content="SELECT 1", headers=local).text == "1\n"


# Bytes on the wire


def test_the_checksum_of_a_block_is_clickhouses() -> None:
    written_by_clickhouse = bytes.fromhex(
        "6b5b1511c72e7a40fa977446b9229990821b000000580200006f676f6c64656e0600ffff3c506f6c64656e"
    )
    assert b"".join(from_blocks([written_by_clickhouse])) == b"golden" * 100
    with pytest.raises(QueryError, match="checksum"):
        list(from_blocks([written_by_clickhouse[:-1] + b"\x00"]))


KINDS = [
    *("String", "FixedString(3)", "Nullable(String)", "Array(Array(String))", "Map(String, Array(UInt16))", "Bool"),
    *("UUID", "IPv4", "IPv6", "Date", "Date32", "DateTime", "DateTime64(3)", "Decimal(9, 2)", "Decimal(76, 2)"),
    *("Enum8('a, (' = 1)", "Int256", "Float32", "Array(Tuple(a UInt8, b String))"),
    *("LowCardinality(String)", "LowCardinality(Nullable(String))", "Array(LowCardinality(String))"),
    *("Map(LowCardinality(String), UInt8)", "Tuple(LowCardinality(String), Array(LowCardinality(Nullable(String))))"),
    *("Tuple(x UInt8, `y z` Tuple(String, Nullable(Int64)))", "Tuple(UInt8, Enum16('it''s )' = 1), DateTime('UTC'))"),
]
BLOCK_INFO = bytes.fromhex("010002ffffffff00")


def test_every_column_is_measured_right_in_the_newer_native_format(http: httpx.Client) -> None:
    names = [f"c{n} {kind}" for n, kind in enumerate(KINDS)]
    structure = ", ".join(names).replace("'", "''")
    answer = http.post("/", content=f"SELECT * FROM generateRandom('{structure}', 1, 9, 3) LIMIT 7 FORMAT Native")
    upgraded = upgrade_native(answer.raise_for_status().content)
    assert len(upgraded) == len(answer.content) + len(BLOCK_INFO) + len(KINDS)
    empty = http.post(
        "/", content="SELECT CAST([], 'Array(LowCardinality(String))') AS a, 1 AS b FORMAT Native"
    ).content
    assert len(upgrade_native(empty)) == len(empty) + len(BLOCK_INFO) + 2
    with pytest.raises(QueryError, match="AggregateFunction"):
        upgrade_native(http.post("/", content="SELECT uniqState(1) AS a FORMAT Native").content)
