"""The metrics that dashboards, alert rules and documents name are the ones of schemas/metrics.py."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from schemas import metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy/prometheus/rules.yml"
DASHBOARDS = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
NAME = re.compile(r"\bheadrace_[a-z_]*[a-z]\b")
#: Labels that a scrape adds, and a histogram's own.
ADDED = {"instance", "job", "le"}


def samples() -> Mapping[str, set[str]]:
    """Every sample's name and the labels it has."""
    found: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            kinds = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}[type(metric)]
            found |= {f"{family.name}{kind}": {*metric._labelnames, *ADDED} for kind in kinds}
    return found


SAMPLES = samples()


def documents() -> Iterator[Path]:
    yield ROOT / "README.md"
    for folder in ("docs", "deploy"):
        yield from (path for path in sorted((ROOT / folder).rglob("*")) if path.is_file())


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    for path in DASHBOARDS:
        yield from json.loads(path.read_text())["panels"]


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ()) if "expr" in target]
    return [rule["expr"] for rule in alerts()] + [text.replace("$__rate_interval", "5m") for text in asked]


@pytest.mark.parametrize("path", list(documents()), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_metric_that_is_named_exists(path: Path) -> None:
    named = set(NAME.findall(path.read_text()))
    assert named - set(SAMPLES) == set()


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_is_promql_and_its_labels_exist(expression: str) -> None:
    promql_parser.parse(expression)
    known = set().union(*(SAMPLES[name] for name in NAME.findall(expression)))
    grouped = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", expression) for label in by.split(",")}
    assert grouped - known == set()
    for name, matchers in re.findall(r"(headrace_\w+)\{([^}]*)\}", expression):
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= SAMPLES[name]


def test_the_dashboard_shows_every_metric() -> None:
    shown = set(NAME.findall("\n".join(expressions())))
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in SAMPLES}
    assert {family for family in families if not any(name.startswith(family) for name in shown)} == set()


def test_there_is_an_alert_for_each_way_to_be_late_refused_or_unaccounted_for() -> None:
    assert [rule["alert"] for rule in alerts()] == [
        "HeadraceLag",
        "HeadraceDeadLetters",
        "HeadraceSpoolAge",
        "HeadraceStuckPartition",
        "HeadracePausedPartition",
        "HeadraceAccountingGap",
    ]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_it_is_and_the_guide_says_what_to_do(rule: dict[str, Any]) -> None:
    assert {"summary", "description"} <= rule["annotations"].keys()
    assert rule["labels"]["severity"] in {"warning", "critical"}
    named = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
    grouped = {label.strip() for by in re.findall(r"\bby \(([^)]*)\)", rule["expr"]) for label in by.split(",")}
    assert named <= grouped
    assert f"`{rule['alert']}`" in (ROOT / "docs/guide/running-in-production.md").read_text()
