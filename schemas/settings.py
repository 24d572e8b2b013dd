"""Settings that more than one part reads, each from one environment variable with a default that works.

`headrace settings` prints the table of all of them; docs/guide/settings.md is generated from the same classes.
"""

import ssl
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class HeadraceSettings(BaseSettings):
    """The base of every settings class: variables begin with HEADRACE_, an unknown value is an error sentence."""

    model_config = SettingsConfigDict(env_prefix="HEADRACE_", frozen=True, extra="ignore")


class CommonSettings(HeadraceSettings):
    """What every process reads."""

    tenants_file: Path = Field(Path("data/tenants.yaml"), description="tenants, keys, origins, rates, tracking plans")
    log_format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="log lines as JSON or for people; auto: pretty on a terminal, else JSON"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe line that is logged"
    )


class BrokerSettings(HeadraceSettings):
    """How to reach the Kafka-compatible log and its schema registry."""

    broker: str = Field("127.0.0.1:8703", description="bootstrap servers, host:port separated by commas")
    broker_security: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="security protocol of the broker"
    )
    broker_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="SASL mechanism, where the protocol has SASL"
    )
    broker_username: str = Field("", description="SASL user")
    broker_password: SecretStr = Field(SecretStr(""), description="SASL password")
    broker_ca_file: Path | None = Field(None, description="certificate authority of the broker; default: the system's")
    broker_cert_file: Path | None = Field(None, description="client certificate, for mutual TLS")
    broker_key_file: Path | None = Field(None, description="key of the client certificate")
    log_id: str = Field("", description="identity of the log; default: the broker's cluster id")
    partitions: int = Field(
        4,
        ge=1,
        le=10_000,
        description="partitions of a topic that has to be created; unset, the embedded log has one a worker",
    )
    replication_factor: int = Field(1, ge=1, description="replicas of a topic that has to be created")
    topic_retention_minutes: int = Field(
        7 * 24 * 60, ge=1, description="minutes that a topic that has to be created keeps its records"
    )
    schema_registry_url: str = Field("", description="Confluent-compatible schema registry; empty: ids from the files")
    schema_registry_username: str = Field("", description="user of the schema registry")
    schema_registry_password: SecretStr = Field(SecretStr(""), description="password of the schema registry")

    def client_options(self) -> dict[str, Any]:
        """The connection arguments that aiokafka's producer, consumer and admin client share."""
        options: dict[str, Any] = {"bootstrap_servers": self.broker, "security_protocol": self.broker_security}
        if "SASL" in self.broker_security:
            options["sasl_mechanism"] = self.broker_sasl_mechanism
            options["sasl_plain_username"] = self.broker_username
            options["sasl_plain_password"] = self.broker_password.get_secret_value()
        if "SSL" in self.broker_security:
            options["ssl_context"] = self.ssl_context()
        return options

    def ssl_context(self) -> ssl.SSLContext:
        """TLS as the CA and client certificate files say."""
        context = ssl.create_default_context(cafile=str(self.broker_ca_file) if self.broker_ca_file else None)
        if self.broker_cert_file:
            context.load_cert_chain(self.broker_cert_file, self.broker_key_file)
        return context


class ClickHouseSettings(HeadraceSettings):
    """How to reach ClickHouse."""

    clickhouse_url: str = Field(
        "http://127.0.0.1:8702", description="http(s)://host:port of ClickHouse's HTTP interface"
    )
    clickhouse_database: str = Field("headrace", description="database of every table")
    clickhouse_username: str = Field("default", description="user")
    clickhouse_password: SecretStr = Field(SecretStr(""), description="password")
    clickhouse_ca_file: Path | None = Field(
        None, description="certificate authority of ClickHouse; default: the system's"
    )
    clickhouse_cluster: str = Field(
        "", description="cluster name: tables become ReplicatedMergeTree, created ON CLUSTER; empty: one server"
    )
    retention_months: int = Field(24, ge=1, le=600, description="months that events are kept; rollups stay")
