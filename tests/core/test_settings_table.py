import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.reasons_table import all_reasons, reasons_markdown
from headrace.settings_table import SECTIONS, all_settings, settings_markdown
from schemas.reasons import Reason
from schemas.settings import HeadraceSettings

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "collector", "streams", "warehouse", "reports", "headrace")
#: A name that ends in an underscore is a prefix that stands for many.
NAME = re.compile(r"\bHEADRACE_[A-Z0-9_]*[A-Z0-9]\b")


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def documents() -> Iterator[Path]:
    yield from (path for name in ("README.md", "docker-compose.yml", "Dockerfile") if (path := ROOT / name).exists())
    for folder in ("docs", "deploy"):
        yield from (path for path in (ROOT / folder).rglob("*") if path.is_file())


def test_the_page_of_settings_is_what_the_command_prints() -> None:
    page = ROOT / "docs/guide/settings.md"
    assert page.read_text() == settings_markdown(), "run: headrace settings --markdown > docs/guide/settings.md"


def test_the_page_of_reasons_is_what_the_command_prints() -> None:
    page = ROOT / "docs/guide/reasons.md"
    assert page.read_text() == reasons_markdown(), "run: headrace schemas reasons > docs/guide/reasons.md"


def test_every_settings_class_of_the_program_is_in_the_table() -> None:
    defined = set()
    for path in sources():
        for name in re.findall(r"^class (\w+)\(HeadraceSettings\)", path.read_text(), re.MULTILINE):
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            defined.add(getattr(module, name))
    assert {settings for _, settings in SECTIONS} == defined
    assert all(issubclass(settings, HeadraceSettings) for settings in defined)


def test_every_setting_is_read_somewhere() -> None:
    code = "\n".join(path.read_text() for path in sources())
    names = [name for _, settings in SECTIONS for name in settings.model_fields]
    assert [name for name in names if not re.search(rf"\.{name}\b", code)] == []


def test_every_setting_has_one_row_and_says_what_it_is() -> None:
    rows = list(all_settings())
    assert len({row.variable for row in rows}) == len(rows)
    assert [row for row in rows if not row.meaning] == []


@pytest.mark.parametrize("where", [sources, documents], ids=["the program", "the documents"])
def test_every_variable_that_is_mentioned_exists(where: "type[Iterator[Path]]") -> None:
    known = {row.variable for row in all_settings()}
    unknown = {
        f"{name} in {path.relative_to(ROOT)}"
        for path in where()
        for name in NAME.findall(path.read_text(errors="replace"))
        if name not in known
    }
    assert unknown == set()


def test_a_setting_is_read_from_the_variable_that_the_table_names(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.variable: row for row in all_settings()}
    assert (rows["HEADRACE_BROKER_PASSWORD"].default, rows["HEADRACE_GEO_FILE"].default) == ("", "")
    assert rows["HEADRACE_LOG_FORMAT"].meaning.endswith("(one of auto, json, pretty)")
    for _, settings in SECTIONS:
        for name, field in settings.model_fields.items():
            if field.annotation is str:
                monkeypatch.setenv(f"HEADRACE_{name.upper()}", "as-set")
                assert getattr(settings(), name) == "as-set"


def test_every_reason_has_a_meaning_and_an_answer() -> None:
    rows = list(all_reasons())
    assert [row.reason for row in rows] == list(Reason)
    assert all(row.meaning and row.answer and row.decided_by for row in rows)
