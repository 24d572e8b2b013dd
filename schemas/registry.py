"""Registering the Avro files with a Confluent-compatible schema registry (Confluent, Redpanda, Karapace, Apicurio).

Protocol: Confluent Schema Registry REST API, `POST /subjects/{subject}/versions`; the subject of a topic is
`<topic>-value`. Registering what is there already answers its id, so every process does it at its start.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx

from schemas.codec import FILE_IDS, schema_text

MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_PASSING: Final = frozenset({408, 425, 429})  # and every 5xx: the same request may succeed later
_HIGHEST_ID: Final = 2**32 - 1  # four bytes on the wire


class RegistryError(Exception):
    """The schemas could not be registered; the message says what the registry answered and what to do."""


def register_schemas(
    url: str,
    username: str = "",
    password: str = "",
    *,
    attempts: int = 6,
    timeout: float = 10.0,
    sleep: Callable[[float], None] = time.sleep,
    transport: httpx.BaseTransport | None = None,
) -> Mapping[tuple[str, int], int]:
    """The registry's id of every (topic, version), oldest version first; raises RegistryError.

    A registry that is away or overloaded is asked `attempts` times, 0.5 s, 1 s, 2 s … apart; `timeout` in seconds is
    that of each attempt.
    """
    auth = httpx.BasicAuth(username, password) if username else None
    try:
        client = httpx.Client(base_url=url, auth=auth, timeout=timeout, transport=transport)
    except (httpx.InvalidURL, ValueError) as error:
        raise RegistryError(f"The schema registry's address {url} is not a URL: {error}.") from error
    with client:
        ids = {key: _register(client, url, *key, attempts, sleep) for key in sorted(FILE_IDS)}
    if len(set(ids.values())) < len(ids):
        raise RegistryError(f"The schema registry {url} gave two schemas the same id: {ids}.")
    return ids


def _register(
    client: httpx.Client, url: str, topic: str, version: int, attempts: int, sleep: Callable[[float], None]
) -> int:
    what = f"{topic} version {version}"
    body = {"schema": schema_text(topic, version), "schemaType": "AVRO"}
    path = f"/subjects/{quote(topic, safe='')}-value/versions"
    trouble = ""
    for attempt in range(attempts):
        if attempt:
            sleep(0.5 * 2 ** (attempt - 1))
        try:
            answer = client.post(path, json=body, headers={"Content-Type": MEDIA_TYPE, "Accept": MEDIA_TYPE})
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise RegistryError(f"The schema registry's address {url} is not a URL: {error}.") from error
        except httpx.TransportError as error:
            trouble = str(error) or type(error).__name__
            continue
        if answer.status_code not in _PASSING and answer.status_code < 500:
            return _id_in(answer, url, what)
        trouble = f"it answered {answer.status_code} {_message_in(answer)}".rstrip()
    raise RegistryError(
        f"The schema registry {url} could not be asked for {what} in {attempts} attempts: {trouble}. Is it running?"
    )


_ADVICE: Final[Mapping[int, str]] = {
    401: "check the user and the password of the schema registry",
    403: "this user may not register schemas",
    404: "check that the address is a schema registry's",
    409: "another program registered an incompatible schema under this subject",
    422: "it does not take the schema as Avro",
}


def _id_in(answer: httpx.Response, url: str, what: str) -> int:
    if answer.status_code != 200:
        advice = _ADVICE.get(answer.status_code, "look into its log")
        said = f"{answer.status_code} {_message_in(answer)}".rstrip()
        raise RegistryError(f"The schema registry {url} refused {what} ({said}): {advice}.")
    number = _object_in(answer).get("id")
    if type(number) is not int or not 0 <= number <= _HIGHEST_ID:
        raise RegistryError(f"The schema registry {url} answered no id for {what}: {_ADVICE[404]}.")
    return number


def _message_in(answer: httpx.Response) -> str:
    return str(_object_in(answer).get("message", ""))[:500]


def _object_in(answer: httpx.Response) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
