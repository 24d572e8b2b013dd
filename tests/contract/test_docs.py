"""What the documents say is so: their commands run, their queries run, and what they name exists."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

import bench.__main__
from schemas.catalog import FIRST_CLASS, FIRST_CLASS_NAMES
from schemas.context import CONTEXT_FIELDS
from schemas.stages import EVENT_COLUMNS
from schemas.tenants import load_tenants
from streams.pipeline import STAGES
from tests.command_lines import check_variables, find_fault
from tests.stack import RunningStack, eventually, running_stack
from warehouse.rollups import ROLLUPS
from warehouse.verification.checks import CHECKS

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
#: In the order in which a reader meets them.
DOCUMENTS = [
    README,
    *(
        ROOT / f"docs/guide/{name}.md"
        for name in (
            "sending-events",
            "tenants-and-tracking-plans",
            "reading-the-numbers",
            "dead-letters",
            "importing",
            "operating-embedded",
            "running-in-production",
            "under-faults",
            "sizing",
        )
    ),
    ROOT / "docs/reliability.md",
    ROOT / "docs/performance.md",
    *sorted((ROOT / "docs/decisions").glob("*.md")),
]
#: Run by a test; the others are read.
RUN = ("sh", "python", "sql")
LANGUAGES = {*RUN, "console", "yaml", "json", "text"}
_BLOCK = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SECONDS = 60.0
_BASH = ("bash", "-euo", "pipefail", "-c")


class Fenced(NamedTuple):
    """A fenced block of a document: the line of its fence, its language, its text."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line} {self.language}"


def blocks(*languages: str) -> list[Fenced]:
    found = []
    for document in DOCUMENTS:
        text = document.read_text()
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            if not languages or match[1] in languages:
                found.append(Fenced(document, line, match[1], match[2]))
    return found


@dataclass
class Reader:
    """Somebody who follows the documents beside a running `headrace up`."""

    stack: RunningStack
    environment: dict[str, str]

    def localised(self, text: str) -> str:
        """The text with this stack's ports and write key in the place of the documents'."""
        ported = re.sub(r"\b870([0-4])\b", lambda found: str(self.stack.port_base + int(found[1])), text)
        return ported.replace("WRITE_KEY", self.stack.write_key)

    def run(self, program: Sequence[str], block: Fenced) -> str:
        """What the block prints; it has to end with 0, within a minute. The blocks of a document share a folder."""
        folder = self.stack.folder / block.document.stem
        folder.mkdir(exist_ok=True)
        done = subprocess.run(
            [*program, self.localised(block.text)],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def ask(self, sql: str) -> str:
        """ClickHouse's answer."""
        answer = httpx.post(f"http://127.0.0.1:{self.stack.port_base + 2}", content=sql, timeout=_SECONDS)
        assert answer.status_code == 200, answer.text
        return answer.text


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A stack of its own, and a shell that finds it by HEADRACE_PORT_BASE."""
    with running_stack(tmp_path_factory.mktemp("docs")) as stack:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        tenants = {"HEADRACE_TENANTS_FILE": str(stack.folder / "data/tenants.yaml")}
        yield Reader(stack, {**kept, **tenants, "PATH": path, "HEADRACE_PORT_BASE": str(stack.port_base)})


@pytest.mark.parametrize("block", blocks(*RUN), ids=str)
def test_a_block_of_a_document_runs(block: Fenced, reader: Reader) -> None:
    match block.language:
        case "sh":
            reader.run(_BASH, block)
        case "python":
            reader.run((sys.executable, "-W", "error", "-c"), block)
        case _:
            reader.ask(reader.localised(block.text))


def test_the_first_event_of_the_readme_is_counted_in_its_first_query(reader: Reader) -> None:
    send, query = [block for block in blocks("sh") if block.document == README][:2]
    count = (
        "SELECT sum(totalEvents) FROM headrace.aggregated_events WHERE eventAction IN ('view', 'search', 'identify')"
    )
    before = int(reader.ask(count))
    answer = json.loads(reader.run(_BASH, send))
    assert (answer["accepted"], answer["rejected"]) == (3, 0)
    eventually(lambda: int(reader.ask(count)), lambda counted: counted >= before + 3, _SECONDS)
    assert {"page", "search", "identity"} <= set(re.findall(r"\w+", reader.run(_BASH, query)))


@pytest.mark.parametrize("block", blocks("console", "yaml", "json"), ids=str)
def test_a_block_that_is_not_run_is_right_as_far_as_it_can_be_read(block: Fenced, tmp_path: Path) -> None:
    match block.language:
        case "console":
            lines = [line.removeprefix("$ ") for line in block.text.splitlines() if line.startswith("$ ")]
            assert lines
            assert [fault for line in lines if (fault := fault_of_command(line))] == []
        case "json":
            json.loads(block.text)
        case _:
            check_yaml(yaml.safe_load(block.text), block.text, tmp_path / "tenants.yaml")


def fault_of_command(line: str) -> str:
    """What is wrong with a command line of a document, "" for nothing."""
    program, *words = shlex.split(line, comments=True)
    if program == "headrace":
        return find_fault(words)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return ", ".join(word for word in words if word not in targets and not re.match(r"[A-Z]+=", word))
    if [program, *words[:2]] == ["python", "-m", "bench"]:
        return find_fault(words[2:], bench.__main__.app)
    return "" if program in {"docker", "curl"} else f"what is {program}?"


def check_yaml(content: Any, text: str, path: Path) -> None:
    if "tenants" in content:
        path.write_text(text)
        assert load_tenants(path).by_company
    else:
        assert all(name.startswith("HEADRACE_") for name in content)
        files = {name: value for name, value in content.items() if not name.endswith("_FILE")}
        check_variables(files)
        check_variables(dict.fromkeys(content.keys() - files.keys(), path))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_block_has_a_language_that_is_checked(document: Path) -> None:
    opened = re.findall(r"^```(\S*)", document.read_text(), re.MULTILINE)
    found = [block.language for block in blocks() if block.document == document]
    assert opened == [word for language in found for word in (language, "")]
    assert set(found) <= LANGUAGES


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_in_the_text_exists(document: Path) -> None:
    text = _BLOCK.sub("", document.read_text())
    named = re.findall(r"`(?:[A-Z_]+=\S+ )?headrace ([a-z][^`]*)`", text)
    assert [fault for span in named if (fault := find_fault(span))] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_to_a_file(document: Path) -> None:
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", document.read_text())]
    missing = [link for link in links if link and "://" not in link and not (document.parent / link).exists()]
    assert missing == []


def test_every_document_of_the_guide_is_read_here_and_linked_from_the_readme() -> None:
    guide = set((ROOT / "docs/guide").glob("*.md"))
    linked = {README.parent / link for link in re.findall(r"\]\((docs/guide/[^)#]+)\)", README.read_text())}
    assert guide == linked
    assert {path.name for path in guide - set(DOCUMENTS)} == {"settings.md", "reasons.md"}


def test_the_picture_names_the_stages_in_their_order() -> None:
    (picture,) = [block.text for block in blocks("text") if block.document == README]
    assert " → ".join(STAGES) in picture


def test_every_test_that_the_reliability_page_names_exists_once() -> None:
    defined: dict[str, list[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                defined.setdefault(node.name, []).append(path.name)
    named = re.findall(r"`(test_\w+)`", (ROOT / "docs/reliability.md").read_text())
    assert len(named) == len(set(named))
    assert [name for name in named if len(defined.get(name, ())) != 1] == []


def test_the_guide_names_every_first_class_event_and_only_words_that_stand_for_one() -> None:
    page = (ROOT / "docs/guide/sending-events.md").read_text()
    section = page.partition("## First-class events")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    named = {
        (names[0].split("/")[0], name.split("/")[-1])
        for _, events, *_ in rows
        for names in [re.findall(r"`([^`]+)`", events)]
        for name in names
    }
    assert named == set(FIRST_CLASS)
    words = {word.strip(" …").lower() for row in rows for word in row[2].split(",") if word.strip()}
    assert words - set(FIRST_CLASS_NAMES) == set()


def test_the_guide_names_every_column_of_events_and_every_rollup() -> None:
    page = (ROOT / "docs/guide/reading-the-numbers.md").read_text()
    named = set(re.findall(r"`(\w+)`", page))
    assert {*EVENT_COLUMNS, *CONTEXT_FIELDS} - named == set()
    rows = {row[0].strip(" `"): row for row in (line.split("|")[1:] for line in page.splitlines()) if len(row) > 2}
    for rollup in ROLLUPS:
        told = set(re.findall(r"\w+", " ".join(rows[rollup.view][1:])))
        assert {*rollup.keys, *rollup.measures, "uniqueUsers"} - told == set()


def test_the_columns_of_the_views_are_those_that_the_guide_names(reader: Reader) -> None:
    page = (ROOT / "docs/guide/reading-the-numbers.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) == 6
    for view, *cells in rows:
        told = re.findall(r"\w+", re.sub(r"\(.*?\)", "", " ".join(cells)))
        columns = reader.ask(
            f"SELECT name FROM system.columns WHERE database = 'headrace' AND table = '{view.strip(' `')}'"
        )
        assert sorted(told) == sorted(columns.split()), view


def test_the_changelog_is_of_the_projects_version() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"\n## {version[1]}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_a_decision_has_a_number_of_its_own_and_says_why_what_and_then() -> None:
    numbers = []
    for path in sorted((ROOT / "docs/decisions").glob("*.md")):
        text = path.read_text()
        numbers.append(path.name[:4])
        assert text.startswith(f"# {path.name[:4]}: ")
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]
    assert numbers == [f"{number:04}" for number in range(1, len(numbers) + 1)]


def test_what_verify_checks_is_what_the_guide_says() -> None:
    said = (ROOT / "docs/guide/reading-the-numbers.md").read_text().partition("## Do they agree?")[2]
    assert {"ledger", "persons", "sessions"} <= set(CHECKS)
    assert all(word in said for word in ("ledger", "ids", "rollup", "session", "person"))
