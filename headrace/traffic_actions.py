"""What visitors of the demo traffic do: each activity is the events of one intention, in their order."""

import random
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from headrace.traffic_people import Account


class Act(NamedTuple):
    """One thing that a visitor does; `page` is the path it leads to, "" to stay where one is.

    `by_server` is True for what a server tells of the user, without a browser.
    """

    category: str
    action: str
    properties: dict[str, Any]
    label: str = ""
    value: float | None = None
    page: str = ""
    by_server: bool = False


class Scene(NamedTuple):
    """What an activity may refer to."""

    rng: random.Random
    user: Account | None


_CONTENT: Final = (
    ("manual", "manual-77", "Brake system, service manual"),
    ("manual", "manual-12", "Wiring diagrams, body electronics"),
    ("manual", "manual-31", "Automatic transmission, overhaul"),
    ("video", "video-204", "Replacing a timing belt in 12 minutes"),
    ("video", "video-118", "Bleeding the brakes alone"),
    ("help_article", "help-9", "How to add a colleague"),
    ("help_article", "help-41", "Why a VIN is not found"),
    ("procedure", "procedure-9", "Oil and filter change"),
    ("procedure", "procedure-55", "Battery test and registration"),
)
_TERMS: Final = ("brake fluid", "oil filter", "torque specs", "timing belt", "P0420", "battery registration", "coolant")
_LOST_TERMS: Final = ("flux capacitor", "brak pads", "wiring digram", "P9999")
_FEATURES: Final = ("torque-calculator", "parts-finder", "labour-times", "compare-vehicles", "export-pdf", "dark-mode")
_BUTTONS: Final = ("Download", "Print", "Share", "Add to favourites", "Show all", "Back")
_PAGES: Final = (
    ("/manuals", "Manuals"),
    ("/videos", "Videos"),
    ("/parts", "Parts"),
    ("/news", "News"),
    ("/account", "Your account"),
    ("/help", "Help"),
)
_VEHICLES: Final = (
    ("Contoso", "Meridian", "LX", 2021),
    ("Contoso", "Meridian", "EX", 2019),
    ("Fabrikam", "Courier", "Van", 2023),
    ("Northwind", "Hauler", "6x4", 2017),
    ("Tailspin", "Spark", "E", 2024),
)
_VIN_SIGNS: Final = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"
_FLOWS: Final = (
    ("no-start", ("battery-voltage", "starter-relay", "fuel-pressure", "crank-sensor")),
    ("rough-idle", ("spark-plugs", "intake-leak", "injectors")),
    ("brake-noise", ("pad-wear", "disc-runout", "caliper")),
)
_OUTCOMES: Final = ("passed", "passed", "passed", "failed", "inconclusive", "skipped")
_PRICES: Final = {"starter": 399.0, "professional": 1499.0, "enterprise": 5900.0}


def view_page(path: str, title: str) -> Act:
    """A page view."""
    return Act("page", "view", {"path": path, "title": title}, title, page=path)


def _browse(scene: Scene) -> Iterator[Act]:
    yield view_page(*scene.rng.choice(_PAGES))


def _click(scene: Scene) -> Iterator[Act]:
    button = scene.rng.choice(_BUTTONS)
    yield Act("ui", "click", {"element": f"button#{button.lower().replace(' ', '-')}", "text": button}, button)


def _search(scene: Scene) -> Iterator[Act]:
    rng = scene.rng
    yield view_page("/search", "Search")
    if rng.random() < 0.15:
        yield Act("search", "search", {"term": rng.choice(_LOST_TERMS), "results": 0})
        return
    term, results = rng.choice(_TERMS), rng.randrange(1, 60)
    yield Act("search", "search", {"term": term, "results": results})
    if rng.random() < 0.7:
        kind, content, title = rng.choice(_CONTENT)
        rank = 1 + min(int(rng.expovariate(0.6)), results - 1)
        yield Act("search", "result_click", {"term": term, "resultId": content, "rank": rank})
        yield from _read_content(scene, kind, content, title)


def _read(scene: Scene) -> Iterator[Act]:
    yield from _read_content(scene, *scene.rng.choice(_CONTENT))


def _read_content(scene: Scene, kind: str, content: str, title: str) -> Iterator[Act]:
    yield Act(
        "content",
        "view",
        {"contentType": kind, "contentId": content, "title": title},
        title,
        page=f"/content/{content}",
    )
    if scene.rng.random() < 0.2:
        helpful = scene.rng.random() < 0.8
        yield Act("content", "feedback", {"contentId": content, "contentType": kind, "helpful": helpful})


def _use_feature(scene: Scene) -> Iterator[Act]:
    seconds = round(scene.rng.uniform(0.2, 30), 1)
    yield Act("feature", "use", {"feature": scene.rng.choice(_FEATURES)}, value=seconds)


def _select_vehicle(scene: Scene) -> Iterator[Act]:
    make, model, trim, year = scene.rng.choice(_VEHICLES)
    vin = "".join(scene.rng.choices(_VIN_SIGNS, k=17))
    properties = {"vin": vin, "trim": trim, "make": make, "model": model, "year": year}
    yield Act("vehicle", "selected", properties, f"{make} {model}", page="/vehicle")


def _diagnose(scene: Scene) -> Iterator[Act]:
    rng = scene.rng
    yield from _select_vehicle(scene)
    flow, steps = rng.choice(_FLOWS)
    for step in steps:
        outcome = "abandoned" if rng.random() < 0.08 else rng.choice(_OUTCOMES)
        properties = {"flow": flow, "step": step, "outcome": outcome, "recommendationFollowed": rng.random() < 0.75}
        yield Act("diagnostic", "step", properties, page=f"/diagnosis/{flow}")
        if outcome in ("failed", "abandoned"):
            return


def _ask_for_help(scene: Scene) -> Iterator[Act]:
    rng = scene.rng
    ticket, priority = f"T-{rng.randrange(1_000, 10_000)}", rng.choice(("low", "normal", "high"))
    yield Act("ticket", "opened", {"ticketId": ticket, "status": "open", "priority": priority}, page="/tickets")
    if scene.user is not None:
        changes = (("updated", "waiting"), ("closed", "solved"))[: rng.randrange(3)]
        for action, status in changes:
            yield Act("ticket", action, {"ticketId": ticket, "status": status, "priority": priority}, by_server=True)


def _subscribe(scene: Scene) -> Iterator[Act]:
    user, rng = scene.user, scene.rng
    if user is None:
        yield view_page("/prices", "Prices")
        return
    action = rng.choices(("started", "renewed", "cancelled"), (3, 6, 1))[0]
    properties = {"plan": user.plan, "oem": user.oem, "seats": rng.randrange(1, 40)}
    price = None if action == "cancelled" else _PRICES[user.plan]
    yield Act("subscription", action, properties, user.plan, price, by_server=True)


_ACTIVITIES: Final[tuple[tuple[int, Callable[[Scene], Iterator[Act]]], ...]] = (
    (26, _browse),
    (18, _click),
    (16, _search),
    (14, _read),
    (12, _use_feature),
    (4, _select_vehicle),
    (5, _diagnose),
    (3, _ask_for_help),
    (2, _subscribe),
)
_CHOICES: Final = [activity for _, activity in _ACTIVITIES]
_WEIGHTS: Final = [weight for weight, _ in _ACTIVITIES]
#: What a robot does.
_CRAWLING: Final = (_browse, _read)


def acts(scene: Scene, bot: bool) -> Iterator[Act]:
    """The acts of one activity, chosen at random."""
    activity = scene.rng.choice(_CRAWLING) if bot else scene.rng.choices(_CHOICES, _WEIGHTS)[0]
    return activity(scene)
