"""The examples of the store in docs/commands.md are what the program takes."""

import re
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster

from headgate.core.redis_client import redis_client

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "commands.md").read_text()
URLS = re.findall(r"^\| `([a-z+]+://[^`]+)` \|", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("url", URLS)
def test_an_example_of_the_store_is_taken(url: str) -> None:
    client = redis_client(url)

    assert isinstance(client, RedisCluster if "+cluster" in url else Redis)


def test_each_form_has_an_example() -> None:
    schemes = {url.partition("://")[0] for url in URLS}

    assert schemes == {"redis", "rediss", "unix", "redis+cluster", "rediss+cluster"}
