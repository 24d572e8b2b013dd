"""The deployment files: every path, port, variable and command in them exists, and they fit each other."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema  # type: ignore[import-untyped]

from schemas.tenants import load_tenants
from tests.command_lines import check_variables, find_fault
from warehouse.client import ClickHouse

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
IMAGE = f"headrace:{PROJECT['project']['version']}"
Document = dict[str, Any]


def read_compose() -> Document:
    """The file with its variables at their defaults."""
    text = re.sub(r"\$\{\w+:-(\w*)\}", r"\1", (ROOT / "docker-compose.yml").read_text())
    assert "${" not in text, "a variable without a default"
    document: Document = yaml.safe_load(text)
    return document


COMPOSE = read_compose()
SERVICES: dict[str, Document] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == IMAGE}
KUBERNETES: list[Document] = [
    document
    for path in sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]


def mounts(service: Document) -> Iterator[tuple[str, str]]:
    for mount in service.get("volumes", ()):
        source, target, *_ = mount.split(":")
        yield source, target


def variable_of_the_image(name: str) -> str:
    found = re.search(rf"\b{name}=(\S+)", DOCKERFILE)
    assert found, f"the Dockerfile does not set {name}"
    return found[1]


# docker-compose.yml


def test_it_is_what_the_compose_specification_says() -> None:
    jsonschema.Draft7Validator(get_builtin_schema("vendor.compose-spec")).validate(COMPOSE)


def test_the_services_stand_in_the_order_of_the_path() -> None:
    assert list(SERVICES) == [
        *("redpanda", "console", "clickhouse", "migrate", "collector", "worker-1", "worker-2"),
        *("prometheus", "grafana"),
    ]
    assert list(OURS) == ["migrate", "collector", "worker-1", "worker-2"]


@pytest.mark.parametrize("service", SERVICES)
def test_an_image_has_a_version(service: str) -> None:
    _, _, tag = SERVICES[service]["image"].partition(":")
    assert re.match(r"v?\d+\.\d+", tag), f"{SERVICES[service]['image']} can change by itself"


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_the_loopback_only(service: str) -> None:
    for port in SERVICES[service].get("ports", ()):
        host, published, _ = port.split(":")
        assert (host, int(published) // 100) == ("127.0.0.1", 87)


def test_the_ports_of_the_path_are_those_of_headrace_up_and_none_is_there_twice() -> None:
    published = {
        int(port.split(":")[1]): (name, int(port.split(":")[2]))
        for name, service in SERVICES.items()
        for port in service.get("ports", ())
    }
    assert len(published) == sum(len(service.get("ports", ())) for service in SERVICES.values())
    assert published[8700] == ("collector", SERVICES["collector"]["environment"]["HEADRACE_COLLECTOR_PORT"])
    assert published[8702] == ("clickhouse", urlsplit(OURS["collector"]["environment"]["HEADRACE_CLICKHOUSE_URL"]).port)
    assert published[8703] == ("redpanda", 8703)
    assert published[8704] == ("worker-1", SERVICES["worker-1"]["environment"]["HEADRACE_WORKER_PORT"])
    command = " ".join(SERVICES["redpanda"]["command"])
    assert "--advertise-kafka-addr=internal://redpanda:9092,external://127.0.0.1:8703" in command


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_is_a_file_of_ours_or_a_volume_that_is_declared(service: str) -> None:
    for source, target in mounts(SERVICES[service]):
        assert target.startswith("/")
        if source.startswith("."):
            assert (ROOT / source).exists(), source
        else:
            assert source in COMPOSE["volumes"]


def test_every_volume_is_used() -> None:
    assert {source for service in SERVICES.values() for source, _ in mounts(service) if source[0] != "."} == set(
        COMPOSE["volumes"]
    )


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_waits_for_one_that_can_tell(service: str) -> None:
    for other, how in SERVICES[service].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        else:
            assert (other, how["condition"]) == ("migrate", "service_completed_successfully")


@pytest.mark.parametrize("service", OURS)
def test_a_command_and_every_variable_exist(service: str) -> None:
    command = OURS[service]["command"]
    assert find_fault(command) == ""
    assert command == [service.partition("-")[0]]
    check_variables(OURS[service].get("environment", {}))


@pytest.mark.parametrize("service", ["collector", "worker-1", "worker-2"])
def test_the_health_check_asks_a_page_that_the_part_has(service: str) -> None:
    environment = OURS[service]["environment"]
    port = environment.get("HEADRACE_COLLECTOR_PORT") or environment["HEADRACE_WORKER_PORT"]
    asked = re.search(r"http://127\.0\.0\.1:(\d+)(/\w+)", OURS[service]["healthcheck"]["test"][-1])
    assert asked
    assert (int(asked[1]), asked[2]) == (port, "/readyz")
    compile(OURS[service]["healthcheck"]["test"][-1], service, "exec")


def test_the_parts_reach_each_other_by_service_and_port() -> None:
    for service in OURS.values():
        environment = service["environment"]
        assert environment["HEADRACE_BROKER"] == "redpanda:9092"
        assert urlsplit(environment["HEADRACE_CLICKHOUSE_URL"]).hostname in SERVICES
        registry = urlsplit(environment["HEADRACE_SCHEMA_REGISTRY_URL"])
        assert registry.hostname == "redpanda"
        assert f"--schema-registry-addr=0.0.0.0:{registry.port}" in SERVICES["redpanda"]["command"]
        clickhouse = SERVICES["clickhouse"]["environment"]
        assert environment["HEADRACE_CLICKHOUSE_USERNAME"] == clickhouse["CLICKHOUSE_USER"]
        assert environment["HEADRACE_CLICKHOUSE_PASSWORD"] == clickhouse["CLICKHOUSE_PASSWORD"]


def test_tenants_and_journal_lie_where_the_image_looks_for_them() -> None:
    targets = {name: dict(mounts(service)) for name, service in OURS.items()}
    for name in OURS:
        assert targets[name]["./deploy/tenants.example.yaml"] == variable_of_the_image("HEADRACE_TENANTS_FILE")
    assert targets["collector"]["journal"] == variable_of_the_image("HEADRACE_JOURNAL_DIR")


def test_the_example_of_a_tenants_file_can_be_read() -> None:
    tenants = load_tenants(ROOT / "deploy/tenants.example.yaml")
    assert tenants.by_company["demo"].has_read_token("rt_demo_replace_me")
    assert all("replace" in key for key in tenants.by_write_key)


# Prometheus and Grafana


def test_prometheus_scrapes_every_part_on_its_port() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    targets = {
        target for job in config["scrape_configs"] for each in job["static_configs"] for target in each["targets"]
    }
    environments = {name: service["environment"] for name, service in OURS.items()}
    assert targets == {
        f"{name}:{environment.get('HEADRACE_COLLECTOR_PORT') or environment['HEADRACE_WORKER_PORT']}"
        for name, environment in environments.items()
        if name != "migrate"
    }
    folder = Path(dict(mounts(SERVICES["prometheus"]))["./deploy/prometheus/rules.yml"]).parent
    assert f"--config.file={folder}/prometheus.yml" in SERVICES["prometheus"]["command"]
    assert config["rule_files"] == ["rules.yml"]


def test_grafana_finds_its_sources_and_dashboards() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    prometheus, clickhouse = yaml.safe_load((provisioning / "datasources/datasources.yaml").read_text())["datasources"]
    assert urlsplit(prometheus["url"]).hostname in SERVICES
    assert clickhouse["jsonData"]["host"] in SERVICES
    assert clickhouse["jsonData"]["username"] == SERVICES["clickhouse"]["environment"]["CLICKHOUSE_USER"]
    variable = clickhouse["secureJsonData"]["password"].strip("${}")
    grafana = SERVICES["grafana"]["environment"]
    assert grafana[variable] == SERVICES["clickhouse"]["environment"]["CLICKHOUSE_PASSWORD"]
    assert grafana["GF_INSTALL_PLUGINS"].startswith(f"{clickhouse['type']} ")
    (provider,) = yaml.safe_load((provisioning / "dashboards/dashboards.yaml").read_text())["providers"]
    assert provider["options"]["path"] == dict(mounts(SERVICES["grafana"]))["./deploy/grafana/dashboards"]
    asked = {(each["type"], each["uid"]) for _, each in _targets()}
    assert asked == {(source["type"], source["uid"]) for source in (prometheus, clickhouse)}


def _targets() -> Iterator[tuple[Document, Document]]:
    for path in (ROOT / "deploy/grafana/dashboards").glob("*.json"):
        for panel in json.loads(path.read_text())["panels"]:
            yield from ((target, target["datasource"]) for target in panel.get("targets", ()))


def test_the_dashboards_queries_run(client: ClickHouse, database: str) -> None:
    queries = [target["rawSql"] for target, _ in _targets() if "rawSql" in target]
    assert len(queries) > 1
    for sql in queries:
        assert client.rows(sql.replace("headrace.", f"{database}.")) == []


# Kubernetes


def of_kind(kind: str) -> dict[str, Document]:
    return {document["metadata"]["name"]: document for document in KUBERNETES if document["kind"] == kind}


#: Everything that runs, in the order of the path.
PODS = [document for kind in ("Job", "StatefulSet") for document in of_kind(kind).values()]
NAMES = [document["metadata"]["name"] for document in PODS]


def test_the_manifests_run_every_part() -> None:
    assert [document["spec"]["template"]["spec"]["containers"][0]["args"] for document in PODS] == [
        ["migrate"],
        ["collector"],
        ["worker"],
    ]


@pytest.mark.parametrize("document", PODS, ids=NAMES)
def test_a_pod_has_our_image_a_command_and_variables_that_exist(document: Document) -> None:
    spec = document["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["image"] == IMAGE
    assert find_fault(container["args"]) == ""
    environment: Document = {}
    for source in container["envFrom"]:
        if "configMapRef" in source:
            environment |= of_kind("ConfigMap")[source["configMapRef"]["name"]]["data"]
        else:
            environment |= of_kind("Secret")[source["secretRef"]["name"]]["stringData"]
    environment |= {variable["name"]: variable.get("value", "pod-0") for variable in container.get("env", ())}
    check_variables(environment)
    assert spec["securityContext"]["runAsUser"] == int(re.findall(r"--uid (\d+)", DOCKERFILE)[0])


@pytest.mark.parametrize("document", PODS, ids=NAMES)
def test_what_a_pod_mounts_is_there_and_holds_the_files_it_names(document: Document) -> None:
    spec = document["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    files = {}
    for volume in spec["volumes"]:
        if "secret" in volume:
            files[volume["name"]] = of_kind("Secret")[volume["secret"]["secretName"]]["stringData"]
        else:
            files[volume["name"]] = of_kind("ConfigMap")[volume["configMap"]["name"]]["data"]
    claims = {claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates", ())}
    assert {mount["name"] for mount in container["volumeMounts"]} == {*files, *claims}
    mounted = {
        f"{mount['mountPath']}/{file}"
        for mount in container["volumeMounts"]
        if mount["name"] in files
        for file in files[mount["name"]]
    }
    variables = of_kind("ConfigMap")["headrace"]["data"]
    assert {value for variable, value in variables.items() if variable.endswith("_FILE")} <= mounted
    journals = {mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in claims}
    assert journals == {value["value"] for value in container.get("env", ()) if value["name"] == "HEADRACE_JOURNAL_DIR"}


@pytest.mark.parametrize("name", ["headrace-collector", "headrace-worker"])
def test_a_service_reaches_its_pods_and_probes_ask_their_port(name: str) -> None:
    service, pod = of_kind("Service")[name]["spec"], of_kind("StatefulSet")[name]["spec"]
    assert pod["serviceName"] == name
    assert service["selector"] == pod["selector"]["matchLabels"] == pod["template"]["metadata"]["labels"]
    (container,) = pod["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert service["ports"][0]["targetPort"] == port["name"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    ours = [
        value
        for variable, value in variables.items()
        if variable in ("HEADRACE_COLLECTOR_PORT", "HEADRACE_WORKER_PORT")
    ]
    assert ours == [str(port["containerPort"])] == [pod["template"]["metadata"]["annotations"]["prometheus.io/port"]]
    probes = {
        container[kind]["httpGet"]["path"]: container[kind]["httpGet"]["port"] for kind in container if "Probe" in kind
    }
    assert probes == {"/readyz": port["name"], "/healthz": port["name"]}


def test_the_tenants_of_the_manifests_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(of_kind("Secret")["headrace-tenants"]["stringData"]["tenants.yaml"])
    assert load_tenants(path).by_company


# Dockerfile


def test_what_the_image_copies_is_there_and_is_sent_to_the_builder() -> None:
    sources = [
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert sent == set(sources)
    packages = {name.rstrip("*") for name in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= set(sources)


def test_the_image_is_built_on_a_version_installs_by_hash_and_runs_as_nobody_special() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert [image for image in images if not re.search(r":\d+\.\d+", image)] == []
    installs = re.findall(r"pip (?:install|wheel)[^\n]*", DOCKERFILE)
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert re.findall(r"^USER (\w+)", DOCKERFILE, re.MULTILINE) == ["headrace"]
    assert 'ENTRYPOINT ["headrace"]' in DOCKERFILE
    assert "headrace" in PROJECT["project"]["scripts"]


def test_the_variables_of_the_image_exist_and_its_ports_are_the_defaults() -> None:
    variables = dict(re.findall(r"(HEADRACE_\w+)=(\S+)", DOCKERFILE))
    check_variables(variables)
    assert re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE) == ["8700 8704"]
