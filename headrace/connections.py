"""How a command reaches a running stack, and how it tells what is wrong outside of itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import typer
from clickhouse_connect.driver.exceptions import ClickHouseError

from headrace.endpoints import Endpoints, default_port_base
from headrace.log_identity import BrokerUnavailable
from headrace.published import AcceptedUnknown, PartUnavailable
from headrace.runfile import read_run_file
from schemas.registry import RegistryError
from schemas.settings import BrokerSettings, ClickHouseSettings, CommonSettings
from schemas.tenants import Tenants, TenantsError, load_tenants
from warehouse.client import ClickHouse, ClickHouseUnavailable

_SENTENCES: Final = (
    AcceptedUnknown,
    BrokerUnavailable,
    ClickHouseUnavailable,
    PartUnavailable,
    RegistryError,
    TenantsError,
)
_NO_DATABASE, _NO_TABLE, _NO_COLUMN = "code: 81", "code: 60", "code: 47"


@contextmanager
def clickhouse_at(endpoints: Endpoints) -> Iterator[ClickHouse]:
    """A connection to the stack's ClickHouse, closed afterwards. What goes wrong is one sentence on stderr, exit 1."""
    settings = ClickHouseSettings(clickhouse_url=endpoints.clickhouse_url)
    client = ClickHouse(settings)
    try:
        yield client
    except _SENTENCES as error:
        raise fail(str(error)) from error
    except ClickHouseError as error:
        raise fail(_sentence(settings, str(error))) from error
    finally:
        client.close()


def fail(sentence: str) -> typer.Exit:
    """Print the sentence to stderr; raise the answer."""
    typer.echo(sentence, err=True)
    return typer.Exit(1)


def _sentence(settings: ClickHouseSettings, error: str) -> str:
    where = f"ClickHouse at {settings.clickhouse_url}"
    if any(code in error for code in (_NO_DATABASE, _NO_TABLE, _NO_COLUMN)):
        database = settings.clickhouse_database
        return f"{where} has not all tables of Headrace in the database {database}; run `headrace migrate`."
    return f"{where} refused a query: {error.partition('DB::Exception: ')[2].strip() or error}"


def tenants_file_at(port_base: int | None) -> Path:
    """The tenants file: HEADRACE_TENANTS_FILE where set, else the running stack's, else the default's."""
    noted = read_run_file(port_base or default_port_base())
    if "HEADRACE_TENANTS_FILE" not in os.environ and noted and Path(noted["tenants_file"]).is_file():
        return Path(noted["tenants_file"])
    return CommonSettings().tenants_file


def log_that_keeps(endpoints: Endpoints, port_base: int | None) -> BrokerSettings | None:
    """The Kafka that the stack at these addresses was given; None for the embedded broker, and for no such stack."""
    at = port_base or default_port_base()
    noted = read_run_file(at)
    is_kafka = noted is not None and not noted["log_forgets"] and endpoints == Endpoints.noted(at)
    return BrokerSettings(broker=endpoints.broker) if is_kafka else None


def tenants_at(port_base: int | None) -> Tenants:
    """The tenants of the stack; raises TenantsError."""
    return load_tenants(tenants_file_at(port_base))
