"""Configurations and calls for tests."""

from pathlib import Path

from headgate._gen.ratelimit_pb2 import RateLimitDescriptor, RateLimitRequest
from headgate.rls_config import parse_domains
from ratelimit.descriptors.tree import Domains

Unit = RateLimitDescriptor.RateLimitOverride


def domains(text: str) -> Domains:
    """The domains that this file configures."""
    return parse_domains(((Path("config.yaml"), text.encode()),))


def descriptor(
    *entries: tuple[str, str],
    hits: int | None = None,
    gives_back: bool = False,
    override: tuple[int, Unit.Unit] | None = None,
) -> RateLimitDescriptor:
    """One descriptor as Envoy sends it; `hits` None leaves them to the request."""
    made = RateLimitDescriptor(
        entries=[RateLimitDescriptor.Entry(key=key, value=value) for key, value in entries],
        is_negative_hits=gives_back,
    )
    if hits is not None:
        made.hits_addend.value = hits
    if override is not None:
        made.limit.requests_per_unit, made.limit.unit = override
    return made


def call(
    *descriptors: RateLimitDescriptor, domain: str = "shop", hits: int = 0
) -> RateLimitRequest:
    return RateLimitRequest(domain=domain, descriptors=descriptors, hits_addend=hits)
