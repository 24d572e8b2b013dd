import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import ValidationError

from schemas.plan import TrackingPlan
from schemas.reasons import Reason
from schemas.tenants import (
    Tenant,
    TenantsError,
    TenantsFile,
    hash_token,
    index_tenants,
    load_tenants,
    write_tenants,
)

HASH = "sha256:" + hashlib.sha256(b"read me").hexdigest()
FULL = f"""
tenants:
  acme:
    writeKeys: [wk_acme, wk_acme_old]
    readTokens: ["{HASH}"]
    allowedOrigins: ["https://portal.example.com", "http://localhost:3000"]
    rateLimit: 500
    retentionMonths: 12
    plan:
      mode: strict
      events:
        Search: {{properties: {{term: {{type: string, required: true}}}}}}
        ui/click: {{additionalProperties: false}}
  globex:
    writeKeys: [wk_globex]
"""


class Clock:
    """A clock that goes only when told; seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tenants.yaml"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_says_everything_about_a_tenant(path: Path) -> None:
    tenants = load_tenants(written(path, FULL))
    acme = tenants.by_company["acme"]
    assert acme.write_keys == ("wk_acme", "wk_acme_old")
    assert acme.allowed_origins == ("https://portal.example.com", "http://localhost:3000")
    assert (acme.rate_limit, acme.retention_months) == (500, 12)
    assert acme.plan is not None
    violation = acme.plan.check("search", "search", {})
    assert violation is not None
    assert violation.reason is Reason.PLAN_MISSING_PROPERTY


def test_what_a_file_leaves_out_is_the_installations_own(path: Path) -> None:
    globex = load_tenants(written(path, FULL)).by_company["globex"]
    assert globex == Tenant(company_id="globex", write_keys=("wk_globex",))
    assert (globex.allowed_origins, globex.rate_limit, globex.retention_months, globex.plan) == (
        ("*",),
        None,
        None,
        None,
    )


def test_every_write_key_leads_to_its_tenant(path: Path) -> None:
    tenants = load_tenants(written(path, FULL))
    assert {key: tenant.company_id for key, tenant in tenants.by_write_key.items()} == {
        "wk_acme": "acme",
        "wk_acme_old": "acme",
        "wk_globex": "globex",
    }


def test_a_read_token_is_known_by_its_hash_alone(path: Path) -> None:
    tenants = load_tenants(written(path, FULL)).by_company
    assert hash_token("read me") == HASH
    assert tenants["acme"].has_read_token("read me")
    assert not tenants["acme"].has_read_token(HASH)
    assert not tenants["globex"].has_read_token("read me")


def test_tenants_and_their_maps_cannot_be_changed(path: Path) -> None:
    tenants = load_tenants(written(path, FULL))
    with pytest.raises(TypeError):
        tenants.by_company["evil"] = tenants.by_company["acme"]  # type: ignore[index]
    with pytest.raises(ValidationError, match="frozen"):
        tenants.by_company["acme"].__setattr__("rate_limit", None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("tenants: [", "is not YAML"),
        ("\x00", "is not YAML"),
        ("[" * 5_000, "is not YAML"),
        ("tenants: {acme: {writeKeys: [2026-13-45]}}", "is not YAML: month must be in"),
        ("tenants:\n  acme: {\n", r"is not YAML: .* \(line 3\)"),
        ("", "has to hold `tenants:`"),
        ("tenants:", "has to hold `tenants:`"),
        ("tenants: [acme]", "has to hold `tenants:`"),
        ("tenant: {acme: {}}", "has to hold `tenants:`"),
        ("tenants: {acme: {}}\nextra: 1", "has to hold `tenants:` and nothing else"),
        ("tenants: {acme: }", "tenant acme: it has to be a mapping of fields"),
        ("tenants: {acme: {companyId: globex}}", "tenant acme: it has to be a mapping of fields"),
        ("tenants: {42: {}}", "companyId 42 is not text; put it in quotes"),
        ("tenants: {'a:b': {}}", "tenant a:b, field companyId"),
        ("tenants: {acme: {}, acme: {}}", "acme is there twice"),
        (
            "tenants: {acme: {writeKeys: [a]}, globex: {writeKeys: [b, a]}}",
            "tenants acme and globex share a key in writeKeys",
        ),
        ("tenants: {acme: {writeKeys: a}}", "tenant acme, field writeKeys"),
        ("tenants: {acme: {writeKeys: [1234]}}", r"tenant acme, field writeKeys\.0"),
        ("tenants: {acme: {writeKeys: ['with space']}}", r"tenant acme, field writeKeys\.0"),
        ("tenants: {acme: {write_keys: [a]}}", "tenant acme, field write_keys"),
        ("tenants: {acme: {readTokens: [the-token-itself]}}", r"tenant acme, field readTokens\.0"),
        ("tenants: {acme: {allowedOrigins: [portal.example.com]}}", r"tenant acme, field allowedOrigins\.0"),
        ("tenants: {acme: {rateLimit: 0}}", "tenant acme, field rateLimit"),
        ("tenants: {acme: {rateLimit: fast}}", "tenant acme, field rateLimit"),
        ("tenants: {acme: {retentionMonths: -1}}", "tenant acme, field retentionMonths"),
        ("tenants: {acme: {plan: {mode: loose}}}", r"tenant acme, field plan\.mode"),
        ("tenants: {acme: {plan: {events: {x: {forbiden: true}}}}}", r"tenant acme, field plan\.events\.x\.forbiden"),
        ("tenants: {acme: !!python/object/apply:os.getcwd []}", "is not YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_sentence_that_names_the_place(path: Path, text: str, sentence: str) -> None:
    with pytest.raises(TenantsError, match=sentence) as caught:
        load_tenants(written(path, text))
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith(".")


def test_bytes_that_are_not_text_are_a_sentence(path: Path) -> None:
    path.write_bytes(b"tenants: {\xff\xfe: {}}")
    with pytest.raises(TenantsError, match="is not YAML"):
        load_tenants(path)


def test_a_file_that_is_not_there_is_a_sentence(path: Path) -> None:
    with pytest.raises(TenantsError, match="cannot be read: No such file"):
        load_tenants(path)
    with pytest.raises(TenantsError, match="cannot be read: Is a directory"):
        load_tenants(path.parent)


def test_an_error_does_not_show_what_was_taken_for_a_hash(path: Path) -> None:
    with pytest.raises(TenantsError) as caught:
        load_tenants(written(path, "tenants: {acme: {readTokens: [the-token-itself]}}"))
    assert "the-token-itself" not in str(caught.value)


def test_one_tenant_may_list_a_write_key_twice() -> None:
    acme = Tenant(company_id="acme", write_keys=("a", "a"))
    assert index_tenants([acme]).by_write_key == {"a": acme}


def test_the_snake_case_and_the_camel_case_names_make_the_same_tenant() -> None:
    fields: dict[str, Any] = {"companyId": "acme", "writeKeys": ["a"], "plan": {"mode": "strict"}}
    assert Tenant.model_validate(fields) == Tenant(
        company_id="acme", write_keys=("a",), plan=TrackingPlan(mode="strict")
    )


def test_a_changed_file_is_read_again_after_the_interval(path: Path) -> None:
    clock = Clock()
    file = TenantsFile(written(path, FULL), check_every=1.0, clock=clock)
    assert "globex" in file.current().by_company
    written(path, "tenants: {acme: {writeKeys: [new_key]}}")
    clock.now += 0.5
    assert "globex" in file.current().by_company
    clock.now += 0.5
    assert list(file.current().by_write_key) == ["new_key"]
    written(path, "tenants: {acme: {writeKeys: [newest_key]}}")
    clock.now += 0.5
    assert list(file.current().by_write_key) == ["new_key"]
    clock.now += 0.5
    assert list(file.current().by_write_key) == ["newest_key"]


def test_a_file_that_did_not_change_gives_the_same_tenants(path: Path) -> None:
    clock = Clock()
    file = TenantsFile(written(path, FULL), clock=clock)
    first = file.current()
    clock.now += 10
    assert file.current() is first


def test_a_file_of_the_same_size_and_time_that_was_moved_there_is_seen(path: Path) -> None:
    clock = Clock()
    file = TenantsFile(written(path, "tenants: {acme: {}}"), clock=clock)
    before = path.stat()
    other = written(path.with_name("other"), "tenants: {beta: {}}")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    clock.now += 1
    assert list(file.current().by_company) == ["beta"]


def test_a_broken_file_keeps_the_old_tenants_and_warns_once(path: Path) -> None:
    clock = Clock()
    file = TenantsFile(written(path, FULL), clock=clock)
    with structlog.testing.capture_logs() as lines:
        written(path, "tenants: {acme: {rateLimit: 0}}")
        for _ in range(3):
            clock.now += 1
            assert "globex" in file.current().by_company
        path.unlink()
        for _ in range(3):
            clock.now += 1
            assert "globex" in file.current().by_company
    assert [(line["event"], line["log_level"]) for line in lines] == [("tenants_file_broken", "warning")] * 2
    assert "field rateLimit" in lines[0]["error"]
    assert "cannot be read" in lines[1]["error"]


def test_a_mended_file_is_taken(path: Path) -> None:
    clock = Clock()
    file = TenantsFile(written(path, FULL), clock=clock)
    written(path, "broken: [")
    clock.now += 1
    file.current()
    written(path, "tenants: {beta: {}}")
    clock.now += 1
    assert list(file.current().by_company) == ["beta"]


def test_a_broken_first_file_is_an_error(path: Path) -> None:
    with pytest.raises(TenantsError):
        TenantsFile(written(path, "tenants: ["))


def test_the_first_file_holds_one_tenant_and_no_token(path: Path) -> None:
    tenant = write_tenants(path, "demo", "wk_random", "rt_random")
    assert load_tenants(path).by_write_key == {"wk_random": tenant}
    assert tenant.has_read_token("rt_random")
    assert "rt_random" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_exists_is_never_written_over(path: Path) -> None:
    written(path, FULL)
    with pytest.raises(TenantsError, match="exists already"):
        write_tenants(path, "demo", "wk_random", "rt_random")
    assert path.read_text() == FULL
    assert list(path.parent.iterdir()) == [path]


def test_a_first_file_with_an_unusable_key_is_not_written(path: Path) -> None:
    with pytest.raises(TenantsError, match=r"field writeKeys\.0"):
        write_tenants(path, "demo", "two words", "rt_random")
    assert not path.exists()
