"""The collector's HTTP shell: a plain ASGI application that routes, authenticates and sends what `intake.take` says.

Plain ASGI, not a framework: a route here is one path with one method, and a framework costs a sixth more an event.
"""

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, Counter, Histogram, generate_latest
from starlette.types import Receive, Scope, Send

from collector.answers import (
    Answer,
    Headers,
    RequestRefused,
    answer_error,
    answer_json,
    answer_refusal,
    answer_verdicts,
    send_answer,
)
from collector.arrival import Arrival
from collector.auth import find_write_key
from collector.batch import parse_batch
from collector.body import ClientGone, inflate_declared, read_body
from collector.cors import answer_preflight, cors_headers
from collector.ids import RandomPool, mint_uuid7
from collector.intake import Intake, take
from collector.letters import letter_of_body
from collector.limits import RateLimiter
from collector.log_client import RecordTooLarge
from collector.openapi import openapi_document
from collector.request import EVENT_ROUTES, Request
from collector.sink import Outgoing, Sink, SinkUnavailable
from schemas import metrics
from schemas.reasons import Reason
from schemas.tenants import Tenant, Tenants


class CurrentTenants(Protocol):
    """Gives the tenants as they are now; `schemas.tenants.TenantsFile` reads them from the file."""

    def current(self) -> Tenants: ...


class Collector:
    """The ASGI application. `clock` is in seconds since the epoch, `monotonic` in seconds since any start.

    `stop` makes /readyz false: the server calls it when it is told to end. The sink is closed when the ASGI lifespan
    ends, after the last request.
    """

    def __init__(
        self,
        tenants: CurrentTenants,
        sink: Sink,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[int], bytes] | None = None,
    ) -> None:
        self._tenants, self._sink = tenants, sink
        self._clock, self._monotonic, self._random = clock, monotonic, random or RandomPool()
        self._rates = RateLimiter(monotonic)
        self._stopping = False
        self._pages: dict[str, Callable[[], Answer]] = {
            "/healthz": lambda: answer_json(200, {"status": "ok"}),
            "/readyz": self._ready,
            "/metrics": lambda: Answer(200, generate_latest(), CONTENT_TYPE_LATEST.encode()),
            "/openapi.json": lambda: Answer(200, openapi_document()),
        }

    def stop(self) -> None:
        """From now on say that this collector is not ready; requests are still answered."""
        self._stopping = True

    async def close(self) -> None:
        """Stop, and close the sink, which finishes what was sent to it."""
        self.stop()
        await self._sink.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._handle(Request.of_scope(scope, receive, self.tenants()), send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _handle(self, request: Request, send: Send) -> None:
        try:
            answer, cors = await self.respond(request)
        except ClientGone:
            return
        await send_answer(send, answer, cors)

    def tenants(self) -> Tenants:
        """The tenants as they are now."""
        return self._tenants.current()

    def awaits_body(self, request: Request) -> bool:
        """Whether an event request is worth its body: the write key is known and its tenant not over its rate."""
        tenant = request.tenant = request.tenants.by_write_key.get(find_write_key(request.headers, request.query))
        return tenant is not None and not self._rates.take(tenant.company_id, tenant.rate_limit, 0)

    async def respond(self, request: Request) -> tuple[Answer, Headers]:
        """The answer, counted, and its CORS headers. Raises ClientGone."""
        started = self._monotonic()
        return self._counted(request, await self._answer(request), started)

    async def respond_all(self, requests: Sequence[Request]) -> list[tuple[Answer, Headers] | Exception]:
        """As `respond`, for event requests that came, with their bodies, at the same time; what fails is in its place.

        What they store is sent together: one wait for all, and each step is done for all before the next.
        """
        started = self._monotonic()
        taken = [self._try_taking(request) for request in requests]
        faults = iter(await self._send_all([intake for intake in taken if isinstance(intake, Intake)]))
        answers: list[tuple[Answer, Headers] | Exception] = []
        for request, intake in zip(requests, taken, strict=True):
            fault = next(faults) if isinstance(intake, Intake) else intake
            if isinstance(intake, Intake) and fault is None:
                answers.append(self._counted(request, _accept(request, intake), started))
            elif isinstance(fault, RequestRefused):
                answers.append(self._counted(request, await self._refuse(request, fault), started))
            elif fault is not None:
                answers.append(fault)
        return answers

    def _counted(self, request: Request, answer: Answer, started: float) -> tuple[Answer, Headers]:
        route = request.path if request.path in EVENT_ROUTES or request.path in self._pages else "other"
        requests, seconds = _request_metrics(route, answer.status)
        requests.inc()
        seconds.observe(self._monotonic() - started)
        return answer, cors_headers(request.header(b"origin"), request.tenant, request.tenants)

    async def _answer(self, request: Request) -> Answer:
        page = self._pages.get(request.path)
        if page is None and request.path not in EVENT_ROUTES:
            return answer_error(404, "not_found", "There is nothing at this path; events go to /v1/batch.")
        if request.method == "OPTIONS":
            return answer_preflight(request)
        allowed = ("POST",) if page is None else ("GET", "HEAD")
        if request.method not in allowed:
            methods = ", ".join((*allowed, "OPTIONS"))
            allow = ((b"allow", methods.encode()),)
            return answer_error(405, "method_not_allowed", f"This path takes {methods}.", allow)
        return page() if page else await self._answer_events(request)

    def _ready(self) -> Answer:
        ready = self._sink.ready() and not self._stopping
        return answer_json(200 if ready else 503, {"ready": ready})

    async def _answer_events(self, request: Request) -> Answer:
        try:
            tenant = request.tenant = _authenticate(request)
            self._spend(tenant, 0)  # who is in debt need not send the body
            if not isinstance(request.body, bytes):
                request.body = await read_body(request.body, request.headers.get(b"content-length"))
            intake = self._take(request, tenant, request.body)
            await self._send(intake.records)
        except RequestRefused as refused:
            return await self._refuse(request, refused)
        return _accept(request, intake)

    async def _refuse(self, request: Request, refused: RequestRefused) -> Answer:
        if refused.letter is not None and request.tenant is not None:
            try:
                await self._put_letter(request, request.tenant, refused, refused.letter)
            except RequestRefused as worse:
                refused = worse
        if refused.letter is None:
            metrics.COLLECTOR_REFUSED.labels(refused.reason).inc()
        return answer_refusal(refused)

    def _try_taking(self, request: Request) -> Intake | Exception:
        try:
            tenant = request.tenant = request.tenant or _authenticate(request)
            assert isinstance(request.body, bytes)
            return self._take(request, tenant, request.body)
        except Exception as error:  # whatever is wrong with one request is not the others' concern
            return error

    def _take(self, request: Request, tenant: Tenant, body: bytes) -> Intake:
        metrics.COLLECTOR_BODY_BYTES.inc(len(body))
        text = inflate_declared(body, request.header(b"content-encoding"))
        batch = parse_batch(text, EVENT_ROUTES[request.path])
        self._spend(tenant, batch.count)
        return take(batch, self._arrival(request, tenant))

    async def _put_letter(self, request: Request, tenant: Tenant, refused: RequestRefused, body: bytes) -> None:
        self._spend(tenant, 1)
        key = f"collector/{self._mint_id()}"
        letter = letter_of_body(self._arrival(request, tenant), key, refused.reason, refused.message, body)
        await self._send([letter])
        metrics.COLLECTOR_REJECTED.labels(tenant.company_id, refused.reason).inc()

    def _spend(self, tenant: Tenant, events: int) -> None:
        wait = self._rates.take(tenant.company_id, tenant.rate_limit, events)
        if wait:
            message = f"The tenant is over its rate of {tenant.rate_limit} events a second; try again in {wait} s."
            raise RequestRefused(Reason.RATE_LIMITED, message, retry_after=wait)

    def _arrival(self, request: Request, tenant: Tenant) -> Arrival:
        return Arrival(tenant.company_id, request.sender(), self._now(), self._mint_id)

    async def _send(self, records: Sequence[Outgoing]) -> None:
        if not records:
            return
        try:
            await self._sink.send(records)
        except SinkUnavailable as error:
            message = "Events can be stored neither on the log nor on disk now; nothing was taken, try again later."
            raise RequestRefused(Reason.UNAVAILABLE, message, retry_after=error.retry_after) from error

    async def _send_all(self, intakes: Sequence[Intake]) -> list[Exception | None]:
        """What keeps each from being stored."""
        try:
            await self._send([record for intake in intakes for record in intake.records])
        except RequestRefused as refused:
            return [refused if intake.records else None for intake in intakes]
        except Exception as error:
            if len(intakes) == 1 or not isinstance(error, RecordTooLarge):
                return [error] * len(intakes)
            return [(await self._send_all([intake]))[0] for intake in intakes]  # nothing was sent, by the sink's word
        return [None] * len(intakes)

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _mint_id(self) -> str:
        return mint_uuid7(self._now(), self._random(10))


def _authenticate(request: Request) -> Tenant:
    key = find_write_key(request.headers, request.query)
    tenant = request.tenants.by_write_key.get(key)
    if tenant is None:
        problem = "This write key is not known" if key else "The request has no write key"
        how = "send one as the user of Basic authentication, as a Bearer token, or as ?k= in the URL"
        raise RequestRefused(Reason.UNAUTHORIZED, f"{problem}; {how}.")
    return tenant


@cache  # finding a metric by its labels costs as much as an event, and routes and statuses are few
def _request_metrics(route: str, status: int) -> tuple[Counter, Histogram]:
    return (
        metrics.COLLECTOR_REQUESTS.labels(route, str(status)),
        metrics.COLLECTOR_REQUEST_SECONDS.labels(route),
    )


@cache  # as many as there are tenants
def _accepted_metric(company_id: str) -> Counter:
    return metrics.COLLECTOR_ACCEPTED.labels(company_id)


def _accept(request: Request, intake: Intake) -> Answer:
    """The verdicts of what is stored, counted."""
    assert request.tenant is not None
    company_id = request.tenant.company_id
    if intake.accepted:
        _accepted_metric(company_id).inc(intake.accepted)
    for refused in intake.refused.values():
        metrics.COLLECTOR_REJECTED.labels(company_id, refused.reason).inc()
    return answer_verdicts(intake.event_ids, intake.refused, brief=request.path == "/v1/beacon")
