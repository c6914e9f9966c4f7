"""Pods that the policy names by DNS: their addresses are followed, and kept in an outage of it."""

import logging

import pytest

from headgate.placement.names import PodNames, address_text, is_address
from tests.fakes import FakeClock

FIXED = "10.0.0.9:8000"
NAMED = "pods.vllm.svc:8000"


class Dns:
    """Answers with these addresses; with None it is away."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] | None = ("10.0.0.2", "10.0.0.1")
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> tuple[str, ...]:
        self.asked.append(f"{host}:{port}")
        if self.addresses is None:
            raise OSError("no answer")
        return self.addresses


async def test_a_name_stands_for_all_its_addresses_in_a_fixed_order() -> None:
    dns = Dns()
    names = PodNames(lambda: [FIXED, NAMED], FakeClock(), dns.resolve)
    await names.look()

    assert names.addresses((FIXED, NAMED)) == (FIXED, "10.0.0.1:8000", "10.0.0.2:8000")
    assert names.addresses((NAMED, "10.0.0.1:8000")) == ("10.0.0.1:8000", "10.0.0.2:8000")
    assert dns.asked == [NAMED], "an address is not asked for"


async def test_the_last_addresses_count_while_dns_is_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dns = Dns()
    names = PodNames(lambda: [NAMED], FakeClock(), dns.resolve)
    await names.look()
    dns.addresses = None
    with caplog.at_level(logging.WARNING):
        await names.look()
        await names.look()

    assert names.addresses((NAMED,)) == ("10.0.0.1:8000", "10.0.0.2:8000")
    assert [record.getMessage() for record in caplog.records] == [
        f"the pods {NAMED} do not resolve: no answer"
    ]


async def test_a_pod_that_leaves_dns_leaves_the_list() -> None:
    dns = Dns()
    names = PodNames(lambda: [NAMED], FakeClock(), dns.resolve)
    await names.look()
    dns.addresses = ("10.0.0.2",)
    await names.look()

    assert names.addresses((NAMED,)) == ("10.0.0.2:8000",)


async def test_a_name_that_left_the_policy_is_forgotten() -> None:
    named = [NAMED]
    names = PodNames(lambda: named, FakeClock(), Dns().resolve)
    await names.look()
    named.clear()
    await names.look()

    assert names.addresses((NAMED,)) == ()


async def test_the_real_resolver_knows_this_machine() -> None:
    async with PodNames(lambda: ["localhost:8000"], FakeClock()) as names:
        assert "127.0.0.1:8000" in names.addresses(("localhost:8000",))


@pytest.mark.parametrize(
    ("pod", "is_one"),
    [("10.0.0.1:80", True), ("[::1]:80", True), ("pods:80", False), ("10.0.0.1.example:80", False)],
)
def test_addresses_and_names_are_told_apart(pod: str, is_one: bool) -> None:
    assert is_address(pod) is is_one


def test_an_address_is_written_as_envoy_does() -> None:
    assert [address_text("::1", 80), address_text("10.0.0.1", 80)] == ["[::1]:80", "10.0.0.1:80"]
