"""The store's URL means what it says, or is an error that names the forms and no password."""

from contextlib import closing
from pathlib import Path

import pytest
from redis.asyncio import Redis, RedisCluster

from headgate.core.errors import OperatorError
from headgate.core.redis_client import redis_client
from ratelimit.store.protocol import StoreError
from ratelimit.store.redis import RedisStore
from tests.redis_server import PATIENT_S, running_redis

MISTAKES = [
    "redis:HOST", "redis:HOST:6379", "redis:/HOST", "redis://", "redis:///0", "redis://:6379/0",
    "redis://user:pw@:6379", "redis://HOST/db", "redis://HOST/0/1", "redis://HOST/-1",
    "redis://HOST:port", "redis://HOST:70000", "redis://HOST:0", "redis://HOST?db=one",
    "redis://[::1", "HOST:6379", "HOST", "", "redis", "http://HOST", "rediss:HOST", "rediss://",
    "unix:/run/redis.sock", "unix://", "unix:///", "unix://run/redis.sock", "unix:///s?db=x",
    "redis+cluster:HOST", "redis+cluster://", "redis+cluster://HOST/1", "cluster://HOST",
    "redis+sentinel://HOST",
]  # fmt: skip


@pytest.mark.parametrize("url", MISTAKES)
def test_a_mistake_is_an_error_that_lists_the_forms(url: str) -> None:
    with pytest.raises(OperatorError, match=r"the store must be `memory`, redis://HOST:PORT/DB"):
        redis_client(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://HOST", ("HOST", 6379, 0)),
        ("redis://HOST:7000/3", ("HOST", 7000, 3)),
        ("redis://user:p%23w@HOST:7000/3", ("HOST", 7000, 3)),
        ("redis://[::1]:7000/0", ("::1", 7000, 0)),
        ("redis://HOST?db=4", ("HOST", 6379, 4)),
        ("rediss://HOST:7000/1?ssl_ca_certs=/etc/ca.pem", ("HOST", 7000, 1)),
    ],
)
def test_an_address_is_used_as_it_is_written(url: str, expected: tuple[str, int, int]) -> None:
    client = redis_client(url)
    assert isinstance(client, Redis)
    options = client.connection_pool.connection_kwargs
    assert (options["host"].upper(), options.get("port", 6379), options.get("db", 0)) == expected


def test_a_socket_and_a_cluster_are_used_as_they_are_written() -> None:
    socket = redis_client("unix:///run/redis.sock?db=2")
    assert isinstance(socket, Redis)
    options = socket.connection_pool.connection_kwargs
    assert (options["path"], options["db"]) == ("/run/redis.sock", 2)
    for scheme in ("redis+cluster", "rediss+cluster"):
        assert isinstance(redis_client(f"{scheme}://HOST:7000"), RedisCluster)


@pytest.mark.parametrize(
    "url", ["redis://:hunter2@HOST:x", "redis://:hun#ter2@HOST", "redis://HOST?hunter2=1"]
)
def test_no_error_shows_the_url_which_may_hold_a_password(url: str) -> None:
    with pytest.raises(OperatorError) as error:
        redis_client(url)
    assert "ter2" not in str(error.value)


async def test_the_password_comes_from_a_file_and_may_change(tmp_path: Path) -> None:
    """Each new connection reads it."""
    file = tmp_path / "password"
    file.write_text("first\n")
    with running_redis() as server, closing(server.client()) as operator:
        operator.config_set("requirepass", "first")
        store = RedisStore.from_url(server.url, PATIENT_S, file)
        await store.ping()
        operator.config_set("requirepass", "second")
        file.write_text("second")
        operator.client_kill_filter(_type="normal", skipme=True)
        await store.ping()
        file.write_text("wrong")
        operator.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(StoreError) as error:
            await store.ping()
        await store.close()
    assert "wrong" not in str(error.value).replace("WRONGPASS", "")


async def test_a_user_of_the_url_has_the_password_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    with running_redis() as server, closing(server.client()) as operator:
        operator.acl_setuser("gate", enabled=True, passwords=["+secret"], keys=["*"],
                             categories=["+@all"])  # fmt: skip
        operator.config_set("requirepass", "other")
        url = server.url.replace("unix://", "unix://gate@")
        store = RedisStore.from_url(url, PATIENT_S, tmp_path / "password")
        await store.ping()
        await store.close()


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("\n", "no password")])
def test_a_file_without_a_password_is_an_error(
    tmp_path: Path, content: str | None, said: str
) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    with pytest.raises(OperatorError, match=said):
        redis_client("redis://HOST", file)


def test_a_password_in_both_places_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    with pytest.raises(OperatorError, match="name one"):
        redis_client("redis://:pw@HOST", tmp_path / "password")
