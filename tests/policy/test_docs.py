"""docs/policy.md names every key of the file, and its own examples work."""

import re
from pathlib import Path

import pytest

from headgate.policy import parse_policy, places
from headgate.policy.adapter_pools import AdapterPoolEntry
from headgate.policy.answer_cache import ModelCacheEntry, TenantCacheEntry
from headgate.policy.auto import CeilingEntry, SizeEntry
from headgate.policy.failover import FailoverEntry
from headgate.policy.fields import Entry
from headgate.policy.identity import (
    ActsForEntry,
    BrowserLoginEntry,
    DeviceLoginEntry,
    IssuerEntry,
    MembershipEntry,
    OwnKeysEntry,
    WorkloadEntry,
)
from headgate.policy.limits import (
    ConcurrentLimitEntry,
    CostLimitEntry,
    WeightsEntry,
    WindowLimitEntry,
)
from headgate.policy.notices import (
    MailEntry,
    NoticesEntry,
    SlackEntry,
    TenantNoticesEntry,
    WebhookEntry,
)
from headgate.policy.prices import PricesEntry
from headgate.policy.schema import (
    AdapterEntry,
    BaseModelEntry,
    CorsEntry,
    FairnessEntry,
    KeyEntry,
    PolicyFile,
    TenantEntry,
    WithoutUsageEntry,
)
from headgate.policy.showback import CloudPricesEntry, CostPoolEntry, ShowbackEntry
from headgate.policy.versions import VersionEntry
from tests.policy.policies import problems_of, with_limits

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
SECTIONS: dict[str, tuple[type[Entry], ...]] = {
    "Top": (PolicyFile,),
    "A model": (BaseModelEntry, AdapterEntry),
    "Prices": (PricesEntry,),
    "An answer cache": (ModelCacheEntry, TenantCacheEntry),
    "Versions": (VersionEntry,),
    "Auto": (SizeEntry,),
    "Ceilings of auto": (CeilingEntry,),
    "Failover": (FailoverEntry,),
    "Ceilings of failover": (CeilingEntry,),
    "Tenants": (TenantEntry,),
    "Fairness": (FairnessEntry,),
    "Keys": (KeyEntry,),
    "Limits": (WindowLimitEntry, CostLimitEntry, ConcurrentLimitEntry),
    "Weights": (WeightsEntry,),
    "Issuers": (IssuerEntry,),
    "Login of people": (DeviceLoginEntry, BrowserLoginEntry),
    "Tenants of an issuer": (MembershipEntry,),
    "Workloads": (WorkloadEntry,),
    "Front ends": (ActsForEntry,),
    "Own keys": (OwnKeysEntry,),
    "A pool of adapters": (AdapterPoolEntry,),
    "APIs without usage": (WithoutUsageEntry,),
    "Web pages": (CorsEntry,),
    "Showback": (ShowbackEntry,),
    "Cost pools": (CostPoolEntry,),
    "Cloud prices": (CloudPricesEntry,),
    "Notices": (NoticesEntry,),
    "Webhook of notices": (WebhookEntry,),
    "Slack": (SlackEntry,),
    "Mail": (MailEntry,),
    "Notices of a tenant": (TenantNoticesEntry,),
}


def section(title: str) -> str:
    return re.split(rf"^##+ {title}$", TEXT, flags=re.MULTILINE)[1].split("\n##")[0]


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_has_its_row_and_every_row_its_key(title: str) -> None:
    rows = set(re.findall(r"^\| `(\w+)` \|", section(title), flags=re.MULTILINE))

    fields = (item for entry in SECTIONS[title] for item in entry.model_fields.items())
    assert {field.alias or name for name, field in fields} == rows


def test_every_entry_of_the_file_has_a_section() -> None:
    documented = {entry for entries in SECTIONS.values() for entry in entries}

    assert {*Entry.__subclasses__(), *DeviceLoginEntry.__subclasses__()} == documented


def test_an_error_in_any_entry_is_told_with_the_keys_of_that_entry() -> None:
    documented = {entry for entries in SECTIONS.values() for entry in entries}

    assert documented <= {known for known in vars(places).values() if isinstance(known, type)}


def test_the_first_example_of_the_page_is_a_policy() -> None:
    example = TEXT.split("```yaml\n")[1].split("```")[0]

    assert {"acme"} == set(parse_policy(example.encode(), "docs/policy.md").tenants)


def test_the_limits_of_the_page_are_limits() -> None:
    examples = re.findall(r"^- (\{count: .*\})$", TEXT, flags=re.MULTILINE)

    assert len(examples) == 13
    assert len(with_limits(*examples).tenants["acme"].limits) == 13


def test_the_example_file_has_no_problems() -> None:
    assert problems_of(ROOT / "examples" / "headgate.yaml") == []
