"""The proxy of the chaos suite does to connections what it says."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.chaos.proxy import Link


class Counter(BaseHTTPRequestHandler):
    """Answers how many requests it had."""

    protocol_version = "HTTP/1.1"
    requests = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).requests += 1
        body = json.dumps(type(self).requests).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def link() -> Iterator[Link]:
    Counter.requests = 0
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counter)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    link = Link([("127.0.0.1", server.server_address[1])])
    yield link
    link.close()
    server.shutdown()
    server.server_close()
    thread.join()


def ask(link: Link, timeout: float = 5.0) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{link.ports[0]}", content=b"x", timeout=timeout)


def test_what_passes_is_answered(link: Link) -> None:
    assert [ask(link).json(), ask(link).json()] == [1, 2]


def test_a_lost_answer_belongs_to_a_request_that_arrived(link: Link) -> None:
    link.set("lose answers")
    with pytest.raises(httpx.TransportError):
        ask(link)
    link.set("pass")
    assert ask(link).json() == 2


@pytest.mark.parametrize("mode", ["refuse", "swallow"])
def test_what_is_refused_or_swallowed_never_arrives(link: Link, mode: str) -> None:
    link.set(mode)  # type: ignore[arg-type]
    with pytest.raises(httpx.TransportError):
        ask(link, timeout=0.3)
    link.set("pass")
    assert ask(link).json() == 1


def test_what_is_held_arrives_when_the_mode_ends(link: Link) -> None:
    link.set("hold")
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(ask(link).json()))
    asking.start()
    time.sleep(0.2)
    assert answers == []
    link.set("pass")
    asking.join()
    assert answers == [1]


def test_an_overloaded_server_answers_503(link: Link) -> None:
    link.set("answer 503")
    assert ask(link).status_code == 503
    link.set("pass")
    assert ask(link).json() == 1


def test_a_cut_breaks_the_connections_there_are_and_no_later_one(link: Link) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{link.ports[0]}") as client:
        assert client.post("", content=b"x").json() == 1
        link.set("hold")
        cutting = threading.Timer(0.2, link.cut)
        cutting.start()
        with pytest.raises(httpx.TransportError):
            client.post("", content=b"x")
        cutting.join()
        link.set("pass")
        assert client.post("", content=b"x").json() == 2


def test_a_stranded_request_arrives_after_its_client_has_gone_and_later_ones_before_it(link: Link) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{link.ports[0]}") as client:
        assert client.post("", content=b"x").json() == 1
        link.set("strand")
        with pytest.raises(httpx.ReadTimeout):
            client.post("", content=b"x", timeout=0.3)
    assert ask(link).json() == 2
    link.set("pass")
    deadline = time.monotonic() + 10
    while Counter.requests < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert Counter.requests == 3
