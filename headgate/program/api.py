"""The listener of the management API."""

import ssl
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from functools import partial

from extauthz.failures import FailureLimit
from extproc.cache.answers import AnswerStore
from headgate.console.app import console_routes
from headgate.console.surroundings import Surroundings
from headgate.core.errors import OperatorError
from headgate.core.issuers import Issuer
from headgate.database.address import database_address
from headgate.database.connection import connected
from headgate.dataplane.box import CertifiedListener
from headgate.identity.issuers.fetch import HttpFetch
from headgate.identity.issuers.provider import Provider
from headgate.identity.sessions import SessionStore
from headgate.identity.store import KeyStore
from headgate.identity.users import UserStore
from headgate.management.app import management_app
from headgate.management.browser.origin import is_local, own_origin
from headgate.management.browser.pages import Doors, login_pages
from headgate.management.browser.sessions import Sessions
from headgate.management.callers import Callers
from headgate.management.calls import Desk
from headgate.management.login import Login, ensure_token
from headgate.program.answers import answer_store
from headgate.program.hooks import HookInputs
from headgate.program.http_server import HttpServer
from headgate.program.parts import running_verifier
from headgate.program.settings import (
    Address,
    ApiSettings,
    ServiceSettings,
    TlsFiles,
)
from headgate.program.tls import CertificateWatcher, ShownCertificate


async def start_api(
    stack: AsyncExitStack,
    settings: ServiceSettings,
    inputs: HookInputs,
    around: AbstractAsyncContextManager[Surroundings],
) -> None:
    """Serves the management API until the stack ends, if the settings name an address.

    `around` is what the console asks beyond the database; it is opened with the API. Raises
    OperatorError for settings that do not fit, and for a bad token or certificate.
    """
    api = settings.api
    if api.address is None:
        return
    _check(settings, api.address)
    if api.operator_token_file is not None:
        ensure_token(api.operator_token_file)
    verifier = await stack.enter_async_context(
        running_verifier(inputs.policy, inputs.clock, inputs.metrics)
    )
    kept = answer_store(settings.store, inputs.answers, inputs.clock)
    desk = _desk(settings, inputs, await stack.enter_async_context(kept))
    failures = FailureLimit(settings.auth_failures_per_minute)
    login = Login(
        verifier,
        partial(_issuers, desk),
        api.operator_token_file,
        desk.users.standing,
        lambda address: failures.count(address, inputs.clock.monotonic_s()),
    )
    tls = None if api.tls is None else await _followed(stack, api.tls, inputs)
    doors = await _doors(stack, login, desk, api.address, api)
    surroundings = await stack.enter_async_context(around)
    pages = console_routes(desk, doors.callers, surroundings)
    app = management_app(desk, doors.callers, [*login_pages(doors), *pages])
    server = HttpServer(app, api.address, "the management API", tls)
    await server.start()
    stack.push_async_callback(server.stop)


def _check(settings: ServiceSettings, address: Address) -> None:
    """Raises OperatorError without a database, and for clear text that others can reach."""
    if settings.database.url is None:
        raise OperatorError("--api needs a database: name --database, or --database-dir of `up`")
    if settings.api.tls is None and not is_local(address.host):
        raise OperatorError(
            f"--api {address} is open to other machines: add --api-tls-cert and --api-tls-key"
        )


async def _doors(
    stack: AsyncExitStack, login: Login, desk: Desk, address: Address, api: ApiSettings
) -> Doors:
    """Where people log in by a browser."""
    origin = own_origin(api.url or address.url("http" if api.tls is None else "https"))
    store = SessionStore(desk.connect, desk.clock)
    issuers = partial(_issuers, desk)
    sessions = Sessions(store, login, issuers)
    fetch = await stack.enter_async_context(aclosing(HttpFetch()))
    return Doors(
        login=login,
        sessions=sessions,
        callers=Callers(login, sessions, origin),
        provider=Provider(fetch, desk.clock),
        issuers=issuers,
        origin=origin,
    )


def _issuers(desk: Desk) -> Mapping[str, Issuer]:
    return desk.policy().issuers


def _desk(settings: ServiceSettings, inputs: HookInputs, answers: AnswerStore) -> Desk:
    database = database_address(str(settings.database.url), settings.database.password_file)
    connect = partial(connected, database)
    store = KeyStore(connect, inputs.clock)
    users = UserStore(connect, inputs.clock)
    return Desk(
        store=store,
        users=users,
        connect=connect,
        policy=inputs.policy,
        clock=inputs.clock,
        answers=answers,
    )


async def _followed(stack: AsyncExitStack, files: TlsFiles, inputs: HookInputs) -> ssl.SSLContext:
    """The context of TLS, whose certificate follows the files until the stack ends."""
    watcher = CertificateWatcher(files, inputs.clock, inputs.metrics, CertifiedListener.API)
    shown = ShownCertificate(watcher.current())
    watcher.set_follower(shown.renew)
    await stack.enter_async_context(watcher)
    return shown.context
