"""The sending commands against a collector on a real server, one that fails in every way among them."""

import asyncio
import gzip
import io
import json
import os
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import typer
import uvicorn
from starlette.types import Message, Receive, Scope, Send
from typer.testing import CliRunner

from collector.app import Collector
from collector.sink import MemorySink
from headrace.commands import demo, send
from headrace.demo_run import paced
from headrace.import_file import ImportJob, import_file
from headrace.importing import MAX_LINE
from headrace.posting import NoAnswer, Reply
from headrace.sending import BatchSender, Outcome, Patience, deliver
from headrace.traffic import generate, pack_requests
from schemas.identifiers import visitor_of
from schemas.records import CollectedEvent
from schemas.stages import DecodedRecord
from streams.core.identity import Alias, Link, link_or_alias, persons
from streams.core.validate import Rules, validate
from streams.user_agents import parse_user_agent
from tests.collecting import ACME, FixedTenants, events_of, letters_of, records_of

COMMANDS = typer.Typer()
send.register(COMMANDS)
demo.register(COMMANDS)
FAILURES = (500, 502, 503, 504, 408, 425, 429, None)


@dataclass
class Trouble:
    """The application behind one that answers the first requests with these statuses; None hangs up instead."""

    app: Collector
    statuses: list[int | None] = field(default_factory=list)
    last_one_arrives: bool = False
    healthy_requests: int = 1_000_000
    requests: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (self.statuses or self.healthy_requests <= 0):
            self.healthy_requests -= scope["type"] == "http"
            self.requests += scope["type"] == "http"
            await self.app(scope, receive, send)
            return
        self.requests += 1
        status = self.statuses.pop(0) if self.statuses else 503
        if self.last_one_arrives and not self.statuses:
            await self.app(scope, receive, _nowhere)
        if status is None:
            raise ConnectionAbortedError  # the server closes the connection without an answer
        headers = [(b"retry-after", b"0"), (b"content-length", b"0")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


async def _nowhere(_: Message) -> None:
    return


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """The URL of the application on a real server and a free port."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, http="httptools", ws="none", log_config=None)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done(), "the server did not start"
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    error: str

    @property
    def summary(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document


async def run(*arguments: str | Path, key: str = "wk-acme") -> Ran:
    words = [*map(str, arguments), "--write-key", key, "--json"]
    result = await asyncio.to_thread(CliRunner().invoke, COMMANDS, words)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def lines(count: int) -> list[dict[str, Any]]:
    return [{"type": "track", "event": "Part Ordered", "userId": f"u-{n % 7}", "value": n} for n in range(count)]


def ndjson(events: Sequence[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def values(sink: MemorySink) -> list[float]:
    return sorted(event["value"] or 0 for event in events_of(sink.records))


@pytest.mark.parametrize("name", ["events.ndjson", "events.ndjson.gz"])
async def test_a_file_arrives_whole_and_sent_again_it_is_the_same_events(name: str, tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / name
    content = ndjson([{**lines(1)[0], "messageId": "own"}, *lines(1_234)])
    file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    async with served(Collector(FixedTenants(), sink)) as url:
        first = await run("send", file, "--url", url, "--batch", "100")
        ids = [event["eventId"] for event in events_of(sink.records)]
        again = await run("send", file, "--url", url)
    assert (first.code, first.summary["accepted"], first.summary["rejected"]) == (0, 1_235, {})
    assert (again.code, again.summary["accepted"]) == (0, 1_235)
    assert len(set(ids)) == len(ids) == 1_235
    assert Counter(event["eventId"] for event in events_of(sink.records)) == Counter(ids * 2)
    assert values(sink)[::2] == [0, *range(1_234)]
    assert os.listdir(tmp_path) == [name]


async def test_the_senders_own_address_and_agent_are_nobodys(tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / "events.ndjson"
    file.write_bytes(ndjson(lines(1)))
    async with served(Collector(FixedTenants(), sink)) as url:
        await run("send", file, "--url", url)
    context = records_of(sink.records)[0]["context"]
    assert {name: text for name, text in context.items() if text} == {"library": "headrace-send"}


@pytest.mark.parametrize(
    ("host", "line", "encodings"),
    [
        ("127.0.0.1", 200, [None]),
        ("localhost", 200, [None]),
        ("0.0.0.0", 200, [b"gzip"]),  # it leads to the server without being a loopback address
        ("127.0.0.1", MAX_LINE, [b"gzip"]),
    ],
)
async def test_a_body_is_gzip_but_for_this_machine_and_there_where_it_is_too_large_as_it_is(
    host: str, line: int, encodings: list[bytes | None], tmp_path: Path
) -> None:
    sink, file, found = MemorySink(), tmp_path / "events.ndjson", list[bytes | None]()
    collector = Collector(FixedTenants(), sink)

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            found.append(dict(scope["headers"]).get(b"content-encoding"))
        await collector(scope, receive, send)

    head = json.dumps({**lines(1)[0], "eventId": "e", "x": ""}).encode().removesuffix(b'"}')
    file.write_bytes(head.ljust(line - 2, b"x") + b'"}\n')
    async with served(noting) as url:
        ran = await run("send", file, "--url", url.replace("127.0.0.1", host))
    assert (ran.code, ran.summary["accepted"], values(sink)) == (0, 1, [0])
    assert found == encodings


async def test_csv_arrives_with_its_numbers(tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / "events.csv"
    file.write_text(
        "type,eventCategory,eventAction,userId,value,properties.term,properties.results\n"
        "track,search,search,u-1,1.5,oil,0\n"
        "track,search,search,u-1,,brake,12\n"
    )
    async with served(Collector(FixedTenants(), sink)) as url:
        ran = await run("send", file, "--url", url)
    assert (ran.code, ran.summary["accepted"]) == (0, 2)
    assert [event["value"] for event in events_of(sink.records)] == [1.5, None]
    properties = [json.loads(event["properties"]) for event in events_of(sink.records)]
    assert properties == [{"term": "oil", "results": 0}, {"term": "brake", "results": 12}]


async def test_what_is_not_taken_is_told_line_by_line_and_the_rest_arrives(tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / "events.ndjson"
    events = lines(300)
    events[41] |= {"userId": None}
    events[200] |= {"companyId": "bolt"}
    file.write_bytes(ndjson(events[:100]) + b"no event\n" + ndjson(events[100:]))
    async with served(Collector(FixedTenants(), sink)) as url:
        ran = await run("send", file, "--url", url, "--batch", "70", "--rejects", tmp_path / "why")
    rejected = {"company_mismatch": 1, "missing_id": 1, "unreadable_line": 1}
    assert (ran.code, ran.summary["accepted"], ran.summary["rejected"]) == (1, 298, rejected)
    found = [json.loads(line) for line in (tmp_path / "why").read_bytes().splitlines()]
    assert [(one["line"], one["reason"], one["field"]) for one in found] == [
        (42, "missing_id", "anonymousId"),
        (101, "unreadable_line", ""),
        (202, "company_mismatch", "companyId"),
    ]
    assert (found[0]["event"]["value"], found[1]["event"], found[2]["event"]["value"]) == (41, "no event", 200)
    assert len(letters_of(sink.records)) == 2


@pytest.mark.parametrize("packed", [False, True])
async def test_a_run_that_could_not_deliver_is_gone_on_with_by_the_next(packed: bool, tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / "events.ndjson"
    events = lines(1_000)
    events[3] |= {"userId": None}
    events[777] |= {"userId": None}
    file.write_bytes(gzip.compress(ndjson(events)) if packed else ndjson(events))
    app = Trouble(Collector(FixedTenants(), sink), healthy_requests=4)
    async with served(app) as url:
        command = ("send", file, "--url", url, "--batch", "50", "--concurrency", "1", "--give-up-after", "0")
        stopped = await run(*command)
        assert (stopped.code, stopped.summary["lines"]) == (1, 200)
        assert "answered 503" in stopped.error
        assert "The same command goes on" in stopped.error
        app.healthy_requests = 1_000_000
        seen = app.requests
        finished = await run(*command)
        assert app.requests - seen == 16
    assert (finished.code, finished.summary["resumedAfterLine"]) == (1, 200)
    assert (finished.summary["accepted"], finished.summary["rejected"]) == (998, {"missing_id": 2})
    assert values(sink) == [value for value in range(1_000) if value not in (3, 777)]
    rejects = (tmp_path / "events.ndjson.rejected.ndjson").read_bytes().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [4, 778]


async def test_csv_is_gone_on_with_after_its_header(tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / "events.csv"
    rows = "".join(f'track,Ordered,u,{n},"a\nb"\n' for n in range(100))
    file.write_text("type,event,userId,value,properties.note\n" + rows)
    app = Trouble(Collector(FixedTenants(), sink), healthy_requests=2)
    async with served(app) as url:
        command = ("send", file, "--url", url, "--batch", "10", "--concurrency", "1", "--give-up-after", "0")
        assert (await run(*command)).summary["lines"] == 41
        app.healthy_requests = 1_000_000
        finished = await run(*command)
    assert (finished.code, finished.summary["lines"], finished.summary["resumedAfterLine"]) == (0, 201, 41)
    assert values(sink) == list(range(100))


async def test_rejects_that_the_saved_progress_does_not_know_are_taken_back(tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / "events.ndjson"
    file.write_bytes(ndjson([{"type": "page"}] * 30))
    app = Trouble(Collector(FixedTenants(), sink), healthy_requests=1)
    rejects = tmp_path / "events.ndjson.rejected.ndjson"
    async with served(app) as url:
        command = ("send", file, "--url", url, "--batch", "10", "--concurrency", "1", "--give-up-after", "0")
        await run(*command)
        rejects.write_bytes(rejects.read_bytes() + b'{"line": 11, "written": "and then killed"}\n' * 500)
        app.healthy_requests = 1_000_000
        assert (await run(*command)).summary["rejected"] == {"missing_id": 30}
    assert [json.loads(line)["line"] for line in rejects.read_bytes().splitlines()] == list(range(1, 31))


async def test_standard_input_is_a_file_too(tmp_path: Path) -> None:
    sink = MemorySink()
    job = ImportJob(None, False, None, tmp_path / "rejects", batch=10, concurrency=2)

    async def post(body: bytes) -> Reply:
        count = len(json.loads(body)["batch"])
        sent.append(count)
        return Reply(200, json.dumps({"accepted": count, "rejected": 0}).encode())

    sent: list[int] = []
    source = cast(BinaryIO, io.BufferedReader(io.BytesIO(gzip.compress(ndjson(lines(25))))))
    result = await import_file(job, source, BatchSender(post, {}, Patience()), lambda *_: None)
    assert (result.progress.accepted, sent, sink.records) == (25, [10, 10, 5], [])


async def test_a_damaged_file_is_sent_up_to_the_damage_and_told(tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / "events.ndjson.gz"
    file.write_bytes(gzip.compress(ndjson(lines(5_000)))[:-3_000])
    async with served(Collector(FixedTenants(), sink)) as url:
        ran = await run("send", file, "--url", url)
    assert ran.code == 1
    assert "The file is damaged after line" in ran.error
    assert len(events_of(sink.records)) > 1_000
    assert values(sink) == list(range(len(events_of(sink.records))))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--rejects", "events.csv"), "would be overwritten"),
        (("--checkpoint", "events.csv"), "would be overwritten"),
        ((), "The column 'wrong' is no field"),
        (("--format", "ndjson", "--checkpoint", "notes"), "is the progress of another file"),
    ],
)
async def test_what_cannot_be_sent_at_all_is_one_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events.csv").write_text("wrong\n1\n")
    other = {"mark": [3, "another"], "offset": 1, "line": 1, "accepted": 0, "rejected": {}, "rejectsSize": 0}
    (tmp_path / "notes").write_text(json.dumps(other))
    ran = await run("send", "events.csv", "--url", "http://127.0.0.1:1", *arguments)
    assert (ran.code, ran.out, ran.error.count("\n")) == (1, "", 1)
    assert sentence in ran.error
    assert (await run("send", "nothing", "--url", "http://127.0.0.1:1")).error == "There is no file nothing.\n"


async def test_an_unknown_write_key_is_told_and_not_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "events.ndjson"
    file.write_bytes(ndjson(lines(3)))
    app = Trouble(Collector(FixedTenants(), MemorySink()))
    async with served(app) as url:
        ran = await run("send", file, "--url", url, key="wk-nobody")
    assert (ran.code, app.requests, ran.summary["accepted"]) == (1, 1, 0)
    assert "answered 401: This write key is not known" in ran.error


def patience(waits: list[float], seconds: float = 1e9) -> Patience:
    """Waits by moving its own clock."""
    now = 0.0

    async def sleep(wait: float) -> None:
        nonlocal now
        now += wait
        waits.append(wait)

    return Patience(seconds, lambda: now, sleep, lambda: 0.5)


@pytest.mark.parametrize("failure", FAILURES)
async def test_what_may_pass_later_is_tried_again_until_it_has(failure: int | None, tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / "events.ndjson"
    file.write_bytes(ndjson(lines(40)))
    app = Trouble(Collector(FixedTenants(), sink), [failure] * 2)
    async with served(app) as url:
        ran = await run("send", file, "--url", url, "--batch", "20")
    assert (ran.code, ran.summary["accepted"], app.requests) == (0, 40, 4)
    assert values(sink) == list(range(40))


async def test_an_answer_that_was_lost_makes_copies_with_the_same_ids_and_no_others(tmp_path: Path) -> None:
    sink, file = MemorySink(), tmp_path / "events.ndjson"
    file.write_bytes(ndjson(lines(10)))
    async with served(Trouble(Collector(FixedTenants(), sink), [None], last_one_arrives=True)) as url:
        ran = await run("send", file, "--url", url)
    assert ran.summary["accepted"] == 10
    assert set(Counter(event["eventId"] for event in events_of(sink.records)).values()) == {2}


def answering(*replies: Reply | NoAnswer) -> tuple[Callable[[bytes], Any], list[bytes]]:
    """A stand-in for the network that gives these answers, the last one for ever, and what it was sent."""
    bodies: list[bytes] = []

    async def post(body: bytes) -> Reply:
        bodies.append(body)
        reply = replies[min(len(bodies), len(replies)) - 1]
        if isinstance(reply, NoAnswer):
            raise reply
        return reply

    return post, bodies


OK = Reply(200, b'{"accepted":1,"rejected":0,"results":[]}')


async def test_waits_grow_with_jitter_and_respect_retry_after() -> None:
    waits: list[float] = []
    post, _ = answering(*[NoAnswer("gone")] * 8, Reply(503, b"", 7.0), OK)
    assert await BatchSender(post, {}, patience(waits)).send([b"{}"]) == Outcome(1)
    assert waits == [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 12.0]


async def test_patience_ends_unless_the_collector_says_when_to_come_back() -> None:
    waits: list[float] = []
    post, _ = answering(NoAnswer("It is gone."))
    outcome = await BatchSender(post, {}, patience(waits, 10)).send([b"{}"])
    assert outcome == Outcome(0, (), "It is gone. It was tried 7 times.")
    assert sum(waits) <= 10
    waits.clear()
    post, _ = answering(*[Reply(429, b"", 9.0)] * 20, OK)
    assert await BatchSender(post, {}, patience(waits, 30)).send([b"{}"]) == Outcome(1)
    assert sum(waits) > 180


async def test_one_event_that_spoils_a_request_is_found_and_the_others_are_delivered() -> None:
    async def post(body: bytes) -> Reply:
        batch = json.loads(body)["batch"]
        if {"bad": 1} in batch:
            return Reply(413, b'{"error":"body_too_large","message":"The body is too large."}')
        return Reply(200, json.dumps({"accepted": len(batch), "rejected": 0}).encode())

    events = [b'{"bad": 1}' if at == 37 else b"{}" for at in range(100)]
    outcome = await BatchSender(post, {}, patience([])).send(events)
    assert (outcome.accepted, outcome.undelivered) == (99, "")
    assert [(one.position, one.reason, one.message) for one in outcome.refused] == [
        (37, "body_too_large", "The body is too large.")
    ]


@pytest.mark.parametrize(
    "body", [b"<html>", b"{}", b'{"accepted":1,"rejected":0}', b'{"accepted":1,"rejected":1,"results":[]}']
)
async def test_an_answer_without_a_verdict_for_every_event_is_no_answer(body: bytes) -> None:
    post, _ = answering(Reply(200, body))
    outcome = await BatchSender(post, {}, patience([])).send([b"{}", b"{}"])
    assert (outcome.accepted, bool(outcome.undelivered)) == (0, True)


async def test_outcomes_come_in_order_with_so_many_requests_at_a_time_and_no_more() -> None:
    @dataclass
    class One:
        events: list[bytes]

    underway, most, order = 0, 0, list[int]()

    async def send(events: Sequence[bytes]) -> Outcome:
        nonlocal underway, most
        underway += 1
        most = max(most, underway)
        await asyncio.sleep(0.01 + 0.002 * (int(events[0]) % 3))
        underway -= 1
        return Outcome(int(events[0]))

    batches = iter([One([b"%d" % number]) for number in range(40)])

    async def next_batch() -> One | None:
        return next(batches, None)

    async for batch, outcome in deliver(next_batch, send, 5):
        assert int(batch.events[0]) == outcome.accepted
        order.append(outcome.accepted)
    assert (order, most) == (list(range(40)), 5)


def stored_and_dead(sink: MemorySink) -> tuple[list[tuple[CollectedEvent, str, bool]], Counter[str], int]:
    """The events of a sink as a worker would store them: (event, anonymousId, robot), reasons of dead ones, copies."""
    rules, seen, copies = Rules({"acme": ACME}, 24), set[str](), 0
    stored, dead = list[tuple[CollectedEvent, str, bool]](), Counter[str]()
    for record in records_of(sink.records):
        valid, rejections = validate(DecodedRecord(0, record), rules)
        dead.update(rejection.reason for rejection in rejections)
        for event in valid.events:
            copies += event["eventId"] in seen
            if event["eventId"] not in seen:
                context = {**record["context"], **event["context"]}
                bot = parse_user_agent(context.get("userAgent", "")).bot
                stored.append((event, record["anonymousId"], bot))
            seen.add(event["eventId"])
    return stored, dead, copies


def recount(stored: list[tuple[CollectedEvent, str, bool]]) -> list[dict[str, Any]]:
    """Events and persons by date and name, from what was stored alone."""
    said = [
        link_or_alias(event["type"], anonymous_id, event["userId"], event["previousId"], event["timestamp"])
        for event, anonymous_id, _ in stored
    ]
    people = persons([one for one in said if isinstance(one, Link)], [one for one in said if isinstance(one, Alias)])
    events, visitors = Counter[tuple[str, str, str]](), defaultdict[tuple[str, str, str], set[str]](set)
    for event, anonymous_id, bot in stored:
        date = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).date().isoformat()
        key = date, event["eventCategory"], event["eventAction"]
        if not bot:
            visitor = visitor_of(anonymous_id, event["userId"])
            events[key] += 1
            visitors[key].add(people.get(visitor, visitor))
    names = ("date", "eventCategory", "eventAction", "totalEvents", "uniqueUsers")
    return [dict(zip(names, (*key, events[key], len(visitors[key])), strict=True)) for key in sorted(events)]


async def test_the_demo_says_exactly_what_becomes_of_its_events(tmp_path: Path) -> None:
    sink, expect = MemorySink(), tmp_path / "expect.json"
    arguments = ("--events", "6000", "--visitors", "150", "--seed", "5", "--expect", expect)
    async with served(Collector(FixedTenants(), sink)) as url:
        ran = await run("demo", "--url", url, *arguments)
    stored, dead, copies = stored_and_dead(sink)
    summary = ran.summary
    assert (ran.code, summary["sent"], summary["unexpected"], summary["undelivered"]) == (0, 6_000, 0, 0)
    assert summary["accepted"] == summary["answered"]["accepted"] == len(events_of(sink.records))
    assert (summary["stored"], summary["duplicate"], summary["dead"]) == (len(stored), copies, dead.total())
    assert (copies, set(dead)) == (60, {"property_schema"})
    assert Counter(letter["reason"] for letter in letters_of(sink.records)) == summary["answered"]["rejected"]
    assert summary["bots"] == sum(bot for _, _, bot in stored) > 0
    assert json.loads(expect.read_text())["aggregates"] == recount(stored)


async def test_the_demo_sent_again_until_the_same_moment_is_the_same_events() -> None:
    sink = MemorySink()
    command = ("demo", "--events", "500", "--until", "2026-11-24T12:00:00")
    async with served(Trouble(Collector(FixedTenants(), sink), [503, None])) as url:
        assert (await run(*command, "--url", url)).code == 0
        once = {event["eventId"] for event in events_of(sink.records)}
        assert (await run(*command, "--url", url)).code == 0
    assert {event["eventId"] for event in events_of(sink.records)} == once


async def test_the_demo_hands_out_events_no_faster_than_its_rate() -> None:
    now, waits = 100.0, list[float]()

    async def sleep(wait: float) -> None:
        nonlocal now
        now += wait
        waits.append(wait)

    next_batch = paced(pack_requests(generate(1, 50, 5, 1_795_000_000_000), 10), 20, lambda: now, sleep)
    for _ in range(3):
        assert await next_batch()
    now += 0.2
    assert await next_batch()
    now += 9
    assert await next_batch()
    assert await next_batch() is None
    assert waits == pytest.approx([0, 0.5, 0.5, 0.3, 0])


async def test_a_demo_that_cannot_be_delivered_says_how_much_is_missing() -> None:
    app = Trouble(Collector(FixedTenants(), MemorySink()), healthy_requests=3)
    async with served(app) as url:
        options = ("--concurrency", "1", "--give-up-after", "0")
        ran = await run("demo", "--url", url, "--events", "1000", "--batch", "100", *options)
    assert (ran.code, ran.summary["sent"], ran.summary["undelivered"]) == (1, 300, 700)
    assert "700 events were not delivered. The collector answered 503" in ran.error
