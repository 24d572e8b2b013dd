import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from schemas.codec import FILE_IDS, Codec, schema_text
from schemas.memory_registry import MemoryRegistry, serve_registry
from schemas.registry import RegistryError, register_schemas
from schemas.topics import COLLECTED, DEAD_LETTER

SUBJECT = f"{COLLECTED}-value"
USER, PASSWORD = "headrace", "not a secret"


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry(USER, PASSWORD)


@pytest.fixture
def url(registry: MemoryRegistry) -> Iterator[str]:
    with serve_registry(registry) as served:
        yield served


def post(url: str, subject: str, schema: Any) -> httpx.Response:
    body = {"schema": json.dumps(schema), "schemaType": "AVRO"}
    return httpx.post(f"{url}/subjects/{subject}/versions", json=body, auth=(USER, PASSWORD))


def answering(*answers: httpx.Response | Exception) -> tuple[httpx.MockTransport, list[httpx.Request]]:
    """A transport that gives these answers in turn, the last one for ever, and the requests it got."""
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        answer = answers[min(len(requests), len(answers) - 1)]
        requests.append(request)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, content=answer.content, headers=answer.headers)

    return httpx.MockTransport(handle), requests


def no_sleep(_: float) -> None:
    return None


def test_every_schema_gets_an_id_of_its_own(url: str) -> None:
    ids = register_schemas(url, USER, PASSWORD)
    assert ids.keys() == FILE_IDS.keys()
    assert len(set(ids.values())) == len(ids)


def test_the_registry_holds_the_avro_file_under_its_id(url: str) -> None:
    for (topic, version), number in register_schemas(url, USER, PASSWORD).items():
        held = httpx.get(f"{url}/schemas/ids/{number}", auth=(USER, PASSWORD)).json()["schema"]
        assert json.loads(held) == json.loads(schema_text(topic, version))
    assert httpx.get(f"{url}/subjects", auth=(USER, PASSWORD)).json() == [SUBJECT, f"{DEAD_LETTER}-value"]


def test_registering_again_gives_the_same_ids(url: str) -> None:
    assert register_schemas(url, USER, PASSWORD) == register_schemas(f"{url}/", USER, PASSWORD)


def test_the_codec_takes_the_registrys_ids(url: str) -> None:
    post(url, "somebody.else-value", "string")
    ids = register_schemas(url, USER, PASSWORD)
    assert ids != FILE_IDS
    Codec(ids)


def test_a_subject_that_holds_an_incompatible_schema_is_a_sentence(url: str) -> None:
    other = {"type": "record", "name": "CollectedRecord", "namespace": "headrace", "fields": []}
    assert post(url, SUBJECT, other).status_code == 200
    with pytest.raises(
        RegistryError, match=r"refused events\.collected version 1 \(409 .*companyId.*incompatible schema"
    ):
        register_schemas(url, USER, PASSWORD, sleep=no_sleep)


def test_a_new_version_with_a_default_is_taken_and_keeps_the_first_ones_id(url: str) -> None:
    ids = register_schemas(url, USER, PASSWORD)
    second = json.loads(schema_text(COLLECTED, 1))
    second["fields"].append({"name": "sdk", "type": "string", "default": ""})
    assert post(url, SUBJECT, second).json()["id"] not in ids.values()
    assert register_schemas(url, USER, PASSWORD) == ids


def test_the_same_schema_has_one_id_in_every_subject(url: str) -> None:
    assert post(url, "a-value", "string").json() == post(url, "b-value", "string").json()


def test_text_that_is_not_avro_is_refused(url: str) -> None:
    assert post(url, SUBJECT, {"type": "recrod"}).status_code == 422


def test_a_wrong_password_is_a_sentence_that_does_not_show_it(url: str) -> None:
    with pytest.raises(RegistryError, match="check the user and the password") as caught:
        register_schemas(url, USER, "wrong-password")
    assert "wrong-password" not in str(caught.value)


def test_a_registry_that_comes_up_late_is_asked_again() -> None:
    busy = httpx.Response(503)
    transport, requests = answering(
        httpx.ConnectError("refused"), busy, httpx.Response(429), httpx.Response(200, json={"id": 1})
    )
    pauses: list[float] = []
    with pytest.raises(RegistryError, match="the same id"):  # the twin answers 1 for everything
        register_schemas("http://registry", sleep=pauses.append, transport=transport)
    assert pauses == [0.5, 1.0, 2.0]
    assert [request.url.path for request in requests[-2:]] == [
        f"/subjects/{topic}-value/versions" for topic in (COLLECTED, DEAD_LETTER)
    ]


def test_a_registry_that_stays_away_is_given_up_with_a_sentence() -> None:
    transport, requests = answering(httpx.ConnectError("connection refused"))
    with pytest.raises(RegistryError, match=r"in 3 attempts: connection refused\. Is it running\?"):
        register_schemas("http://registry", attempts=3, sleep=no_sleep, transport=transport)
    assert len(requests) == 3


def test_a_refusal_is_not_asked_again() -> None:
    transport, requests = answering(httpx.Response(404, text="<html>"))
    with pytest.raises(RegistryError, match="check that the address is a schema registry's"):
        register_schemas("http://registry", sleep=no_sleep, transport=transport)
    assert len(requests) == 1


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"<html>", b'{"id": "1"}', b'{"id": true}', b'{"id": -1}', b'{"id": 4294967296}']
)
def test_an_answer_without_a_usable_id_is_a_sentence(content: bytes) -> None:
    transport, _ = answering(httpx.Response(200, content=content))
    with pytest.raises(RegistryError, match="answered no id"):
        register_schemas("http://registry", sleep=no_sleep, transport=transport)


@pytest.mark.parametrize("address", ["registry:8081", "", "http://registry:port", "ftp://registry", "not a url"])
def test_an_address_that_is_no_url_is_a_sentence(address: str) -> None:
    with pytest.raises(RegistryError, match="is not a URL"):
        register_schemas(address, sleep=no_sleep)


@pytest.fixture(params=["http", "memory"])
def ask(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str, bytes], tuple[int, Any]]]:
    """The same questions over HTTP and in memory."""
    registry = MemoryRegistry()
    if request.param == "memory":
        yield lambda method, path, body: registry.answer(method, path, body=body)
        return
    with serve_registry(registry) as url, httpx.Client(base_url=url) as client:

        def over_http(method: str, path: str, body: bytes) -> tuple[int, Any]:
            answer = client.request(method, path, content=body)
            return answer.status_code, answer.json()

        yield over_http


def test_the_registry_answers_errors_as_confluent_does(ask: Callable[[str, str, bytes], tuple[int, Any]]) -> None:
    assert ask("GET", "/schemas/ids/1", b"")[1]["error_code"] == 40403
    assert ask("POST", "/subjects/a-value/versions", b"not JSON")[0] == 422
    assert ask("GET", "/elsewhere", b"")[0] == 404
    assert ask("POST", "/subjects/a-value/versions", b'{"schema": "\\"int\\""}') == (200, {"id": 1})
    status, answer = ask("POST", "/subjects/a-value/versions", b'{"schema": "\\"string\\""}')
    assert (status, answer["error_code"]) == (409, 409)
    assert ask("GET", "/subjects", b"") == (200, ["a-value"])
