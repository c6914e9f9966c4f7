"""A client of the Redis that replicas share, from its URL. Callers set their own deadlines."""

from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException

from headgate.core.errors import OperatorError


def redis_client(url: str) -> "Redis | RedisCluster":
    """For `redis://`, `rediss://` or `unix://`; a cluster for `redis+cluster://` or
    `rediss+cluster://` of any of its nodes.

    Raises OperatorError for anything else (without the URL, which may hold a password).
    """
    scheme, separator, address = url.partition("://")
    bare, _, cluster = scheme.partition("+")
    options: dict[str, Any] = {
        # One immediate retry for a connection that broke while idle. Every operation but `count`
        # may be sent twice: a count that arrived before the connection broke counts twice.
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        "socket_timeout": None,
        "socket_connect_timeout": None,
        "protocol": 2,
    }
    try:
        if cluster == "cluster":
            return RedisCluster.from_url(f"{bare}{separator}{address}", **options)
        return Redis.from_url(url, **options)
    except (ValueError, RedisClusterException) as error:
        raise OperatorError(
            "the store must be `memory` or a URL that starts with redis://, rediss://, unix://,"
            " redis+cluster:// or rediss+cluster://, with a number as its port"
        ) from error
