"""The interceptor that asks for a token: who calls, whether they may, how much they use; and the audit log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc

from landseer.ensemble.api.audit import Audit
from landseer.ensemble.api.status import grpc_code, status_of, trailers
from landseer.ensemble.errors import LandseerError, NotPermitted, RateLimited, Unauthenticated
from landseer.ensemble.security.rates import Allowances, Rate
from landseer.ensemble.security.tokens import ADMIN, SEARCH, WRITE, Token, TokenFile
from landseer.ensemble.telemetry.request_id import new_request_id
from landseer.v1.index_pb2 import DeleteRequest, UpsertManyRequest, UpsertRequest

HEALTH = "/grpc.health.v1.Health/"
"""Open to all: probes have no tokens, and it tells only whether the server works."""
NEEDED = {
    "/landseer.v1.SearchService/Search": SEARCH,
    "/landseer.v1.SearchService/Describe": SEARCH,
    "/landseer.v1.IndexService/Get": SEARCH,
    "/landseer.v1.IndexService/List": SEARCH,
    "/landseer.v1.IndexService/Stats": SEARCH,
    "/landseer.v1.IndexService/Upsert": WRITE,
    "/landseer.v1.IndexService/UpsertMany": WRITE,
    "/landseer.v1.IndexService/Delete": WRITE,
}
"""The least role by method. Any other method, such as reflection, needs the role admin."""
_SCHEME = "bearer "
_HOW = 'send the metadata "authorization: Bearer TOKEN" (--token-file); see docs/security.md'


class Authorizer(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Lets those calls through that a token allows.

    A call is refused before its request is read: who has no token cannot make the server take 64 MiB.
    """

    def __init__(self, tokens: TokenFile, audit: Audit | None = None) -> None:
        self._tokens = tokens
        self._audit = audit or Audit()
        self._allowances = Allowances()

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        """Return the method's handler, or one that refuses; None for an unknown method."""
        handler, method = await continuation(handler_call_details), handler_call_details.method
        if handler is None or method.startswith(HEALTH):
            return handler
        token = None
        try:
            token = self._caller(handler_call_details.invocation_metadata or ())
            self._check(token, method)
        except LandseerError as error:
            return self._refusing(error, token, method, streams=handler.response_streaming)
        return self._counted(handler, token, method)

    def _caller(self, metadata: Any) -> Token:
        given = [value for key, value in metadata if key == "authorization"]
        if not given:
            raise Unauthenticated(f"this server asks for a token, and the call has none; {_HOW}")
        if len(given) > 1 or not isinstance(given[0], str) or not given[0].lower().startswith(_SCHEME):
            raise Unauthenticated(f"got an authorization that is no bearer token; {_HOW}")
        token = self._tokens.find(given[0][len(_SCHEME) :].strip())
        if token is None:
            raise Unauthenticated("the token is not one of this server's: it was removed, or belongs to another server")
        return token

    def _check(self, token: Token, method: str) -> None:
        needed = NEEDED.get(method, ADMIN)
        if not token.may(needed):
            name = method.rpartition(".")[2]
            raise NotPermitted(f"{name} needs the role {needed}, and token {token.name} has {token.role}")
        allowance = self._allowances.of(token)
        for rate, what in ((allowance.requests, "requests"), (allowance.bytes, "bytes")):
            if rate is not None and (wait := rate.wait_s()) > 0:
                raise RateLimited(f"token {token.name} has used its {what} per second; try again in {wait:.1f} s")
        if allowance.requests is not None:
            allowance.requests.use(1)

    def _refusing(self, error: LandseerError, token: Token | None, method: str, *, streams: bool) -> Any:
        """Return a handler that does not read the request. The observer makes statuses of errors of our services."""

        async def refuse(_: Any, context: Any) -> None:
            self._audit.refused(token, method, context.peer(), error)
            raise error

        async def refuse_stream(_: Any, context: Any) -> AsyncIterator[Any]:
            self._audit.refused(token, method, context.peer(), error)
            status = status_of(error, new_request_id())
            await context.abort(grpc_code(status), status.message, trailers(status))
            yield

        if streams:
            return grpc.stream_stream_rpc_method_handler(refuse_stream)
        return grpc.stream_unary_rpc_method_handler(refuse)

    def _counted(self, handler: Any, token: Token, method: str) -> Any:
        """Return the handler, with its bytes counted and its writes in the audit log."""
        limit = self._allowances.of(token).bytes
        writes = NEEDED.get(method) == WRITE
        if handler.response_streaming or not (limit or writes):
            return handler

        async def unary(request: Any, context: Any) -> Any:
            if limit is not None:
                limit.use(request.ByteSize())
            if not writes:
                return await handler.unary_unary(request, context)
            with self._audit.write(token, method, context.peer()) as seen:
                seen(_id_of(request))
                return await handler.unary_unary(request, context)

        async def stream(requests: AsyncIterator[Any], context: Any) -> Any:
            with self._audit.write(token, method, context.peer()) as seen:
                return await handler.stream_unary(_passed_on(requests, limit, seen), context)

        coders = (handler.request_deserializer, handler.response_serializer)
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(cast("Any", stream), *coders)
        return grpc.unary_unary_rpc_method_handler(cast("Any", unary), *coders)


async def _passed_on(
    requests: AsyncIterator[Any], limit: Rate | None, seen: Callable[[str], None]
) -> AsyncIterator[Any]:
    """Pass a stream on, no faster than the limit: a stream waits, where a single call is refused."""
    async for request in requests:
        seen(_id_of(request))
        if limit is not None:
            while (wait := limit.wait_s()) > 0:
                await asyncio.sleep(wait)
            limit.use(request.ByteSize())
        yield request


def _id_of(request: DeleteRequest | UpsertRequest | UpsertManyRequest) -> str:
    return request.id if isinstance(request, DeleteRequest) else request.picture.id
