"""A pool whose every use ends in time, whatever the server does, frozen included."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import asyncpg
import structlog
from asyncpg import exceptions as pg

from controller.errors import Conflict, FreezeBegan, RaisesBlocked, RampartError, StoreUnavailable

T = TypeVar("T")


class NoRaise(pg.PostgresError):
    """`append_raise` refused: a replica is absent, or a barrier is up."""

    sqlstate = "RB001"


class Frozen(pg.PostgresError):
    """`append_raise` refused: a freeze holds that whoever decided did not know."""

    sqlstate = "RB002"


Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

ATTEMPTS = 4
STATEMENTS_CACHED = 100
# The server rolled these back for certain, so that doing it again is safe. The last is a migration meanwhile.
ROLLED_BACK = (pg.DeadlockDetectedError, pg.SerializationError, pg.InvalidCachedStatementError)
# InternalClientError: the server said goodbye to an idle connection, and its end is not read yet.
UNAVAILABLE = (
    OSError,
    pg.InternalClientError,
    TimeoutError,
    pg.InterfaceError,
    pg.PostgresConnectionError,
    pg.OperatorInterventionError,
    pg.InsufficientResourcesError,
    pg.PostgresSystemError,
    pg.InvalidAuthorizationSpecificationError,
    pg.InvalidCatalogNameError,
    pg.ReadOnlySQLTransactionError,
    pg.IdleInTransactionSessionTimeoutError,
    pg.LockNotAvailableError,
)

# What a constraint of the schema means to a person.
TAKEN = {
    "audit_entry_once": "this audit entry was recorded before; read the state again",
    "tokens_digest_once": "another token has this secret; create one with a new secret",
    "kill_addresses_digest_once": "another trigger has this secret; create one with a new secret",
    "sdk_keys_digest_once": "another SDK key has this secret; create one with a new secret",
}

_log = structlog.get_logger()


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        # We change nothing in a session, so that a round trip to reset it would be for nothing.
        return ""


class Connections:
    """`timeout_seconds` covers waiting for a connection, making it, and all that is done with it.

    `pooled`: a transaction pooler is in between, so that only one transaction is sure to meet one session. Then no
    statement is prepared under a name, and each is in a transaction of its own, so that the server's timeouts can
    be set for it, in the message that begins it.
    """

    def __init__(self, *, pool_size: int, timeout_seconds: float, pooled: bool = False) -> None:
        self._pool_size = pool_size
        self._timeout = timeout_seconds
        self._pooled = pooled
        self._server_timeouts = {
            "statement_timeout": str(round(timeout_seconds * 1000)),
            "idle_in_transaction_session_timeout": str(round(timeout_seconds * 2000)),
        }
        local = [f"SET LOCAL {name} = {value}" for name, value in self._server_timeouts.items()]
        self._begin = "; ".join(["BEGIN", *local]) if pooled else "BEGIN"
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self, dsn: str) -> None:
        """Connects to nothing yet: a database that is away now may come back later."""
        session = {"application_name": "rampart"}
        if not self._pooled:
            session |= {"timezone": "UTC", **self._server_timeouts}
        self._pool = await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=self._pool_size,
            connection_class=_Connection,
            statement_cache_size=0 if self._pooled else STATEMENTS_CACHED,
            server_settings=session,
        )

    async def close(self) -> None:
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            await asyncio.wait_for(pool.close(), self._timeout)
        except (TimeoutError, *UNAVAILABLE) as error:
            _log.warning("store_connections_terminated", reason=str(error) or "timeout")
            pool.terminate()

    async def fetch(self, statement: str, *arguments: Any) -> Sequence[asyncpg.Record]:
        return await self._statement(lambda connection: connection.fetch(statement, *arguments))

    async def fetchrow(self, statement: str, *arguments: Any) -> asyncpg.Record | None:
        return await self._statement(lambda connection: connection.fetchrow(statement, *arguments))

    async def fetchval(self, statement: str, *arguments: Any) -> Any:
        return await self._statement(lambda connection: connection.fetchval(statement, *arguments))

    async def execute(self, statement: str, *arguments: Any) -> None:
        await self._statement(lambda connection: connection.execute(statement, *arguments))

    async def _statement(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        return await (self.transact(work) if self._pooled else self.run(work))

    async def transact(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """All of `work` in one transaction. It may be called again, after a deadlock."""

        async def all_or_nothing(connection: Connection) -> T:
            await connection.execute(self._begin)
            try:
                result = await work(connection)
            except BaseException as error:
                if _leaves_it_usable(error):
                    await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")
            return result

        return await self.run(all_or_nothing)

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Raises StoreUnavailable when the outcome is not known in time."""
        for _ in range(ATTEMPTS):
            try:
                return await self._once(work)
            except ROLLED_BACK as error:
                last = error
        raise StoreUnavailable(f"the database rolled back {ATTEMPTS} attempts: {last}") from last

    async def _once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        if self._pool is None:
            raise StoreUnavailable("the store is not connected")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        try:
            connection = await self._pool.acquire(timeout=self._timeout)
            # Cutting the connection is the one thing that ends a wait for a frozen server: cancelling a query
            # would ask that very server.
            watchdog = loop.call_at(deadline, connection.terminate)
            try:
                return await work(connection)
            except BaseException as error:
                if not _leaves_it_usable(error):
                    with contextlib.suppress(pg.InterfaceError):  # the watchdog was first
                        connection.terminate()
                raise
            finally:
                watchdog.cancel()
                await self._pool.release(connection)
        except pg.UniqueViolationError as error:
            if error.constraint_name in TAKEN:
                raise Conflict(TAKEN[error.constraint_name]) from error
            raise
        except NoRaise as error:
            raise RaisesBlocked(str(error)) from error
        except Frozen as error:
            raise FreezeBegan("a freeze was added meanwhile; decide again in knowledge of it") from error
        except (pg.UndefinedTableError, pg.UndefinedFunctionError) as error:
            raise StoreUnavailable(f"the database is not migrated ({error}); run `rampart migrate`") from error
        except (AttributeError, *UNAVAILABLE) as error:
            # AttributeError: cut between preparing and executing, asyncpg misses the protocol that it had.
            if loop.time() >= deadline:
                raise StoreUnavailable(f"the database did not answer within {self._timeout:g} s") from error
            if isinstance(error, AttributeError):
                raise
            raise StoreUnavailable(f"the database is not available: {error or type(error).__name__}") from error


def _leaves_it_usable(error: BaseException) -> bool:
    """Whether a connection can serve others after this: the server has answered and goes on."""
    answered = isinstance(error, pg.PostgresError | RampartError)
    return answered and not isinstance(error, UNAVAILABLE)
