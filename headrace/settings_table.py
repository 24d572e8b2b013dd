"""The table of all settings, generated from their classes."""

from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from collector.settings import CollectorSettings
from headrace.collector import JournalSettings
from headrace.detours import DetourSettings
from headrace.endpoints import DEFAULT_PORT_BASE, Endpoints
from schemas.settings import BrokerSettings, ClickHouseSettings, CommonSettings, HeadraceSettings
from streams.settings import WorkerSettings

#: Every settings class under the heading of its section.
SECTIONS: Final[tuple[tuple[str, type[HeadraceSettings]], ...]] = (
    ("Every process", CommonSettings),
    ("The log and its schema registry", BrokerSettings),
    ("ClickHouse", ClickHouseSettings),
    ("The collector", CollectorSettings),
    ("The collector's journal", JournalSettings),
    ("The worker", WorkerSettings),
    ("Proxies inside `headrace up`", DetourSettings),
)
_COMMANDS: Final = "How the commands find a stack"


class Setting(NamedTuple):
    """One environment variable: its section, name, default as text ("" for none), and what it is."""

    section: str
    variable: str
    default: str
    meaning: str


def all_settings() -> Iterator[Setting]:
    """Every setting there is, section by section."""
    at = Endpoints.at(DEFAULT_PORT_BASE)
    yield Setting(_COMMANDS, "HEADRACE_PORT_BASE", str(DEFAULT_PORT_BASE), "first of the stack's five ports")
    yield Setting(_COMMANDS, "HEADRACE_COLLECTOR_URL", at.collector_url, "where the collector answers")
    yield Setting(_COMMANDS, "HEADRACE_WORKER_URL", at.worker_url, "where the worker's web server answers")
    for section, settings in SECTIONS:
        prefix = settings.model_config["env_prefix"]
        for name, field in settings.model_fields.items():
            yield Setting(section, f"{prefix}{name}".upper(), _default(field), _meaning(field))


def _default(field: FieldInfo) -> str:
    default = field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default is None else str(default)


def _meaning(field: FieldInfo) -> str:
    meaning = field.description or ""
    if get_origin(field.annotation) is not Literal:
        return meaning
    return f"{meaning} (one of {', '.join(get_args(field.annotation))})"


def settings_markdown() -> str:
    """docs/guide/settings.md."""
    parts = [
        "# Settings",
        "",
        "Each setting is an environment variable; an empty default means none. `headrace up` sets those of its parts "
        "that have to differ.",
        "This page is the output of `headrace settings --markdown`.",
    ]
    section = ""
    for setting in all_settings():
        if setting.section != section:
            section = setting.section
            parts += ["", f"## {section}", "", "| variable | default | what it is |", "|---|---|---|"]
        default = f"`{setting.default}`" if setting.default else ""
        parts.append(f"| `{setting.variable}` | {default} | {setting.meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(parts) + "\n"
