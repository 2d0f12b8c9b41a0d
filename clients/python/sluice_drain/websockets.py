"""For servers of the package websockets: serve in place of its own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from weakref import WeakSet

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websockets_serve
from websockets.http11 import Request, Response

from .gate import KEY, Gate

Handler = Callable[[ServerConnection], Awaitable[None]]
ProcessRequest = Callable[[ServerConnection, Request], Any]


def serve(gate: Gate, handler: Handler, *args: Any, process_request: ProcessRequest | None = None, **kwargs: Any) -> websockets_serve:
    """websockets.asyncio.server.serve, with its arguments: refuses handshakes while draining and lets connections go with 1012."""
    refused: WeakSet[ServerConnection] = WeakSet()

    async def arrive(connection: ServerConnection, request: Request) -> Response | None:
        path = request.path.partition("?")[0]
        if not gate.passes(path) and gate.refuses(connection.remote_address[0] if connection.remote_address else None):
            if gate.refusal == HTTPStatus.SERVICE_UNAVAILABLE:
                response = connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
                response.headers["Retry-After"] = str(gate.retry_after)
                response.headers["x-sluice-refused"] = gate.why
                return response
            refused.add(connection)
        elif process_request:
            response = process_request(connection, request)
            answer: Response | None = await response if inspect.isawaitable(response) else response
            return answer
        return None

    async def talk(connection: ServerConnection) -> None:
        if connection in refused:
            return await connection.close(1013, "try again later")
        remote = connection.remote_address[0] if connection.remote_address else None
        seat = gate.admit(lambda: gate.start(connection.close(1012, "service restart")), remote=remote,
                          force=connection.transport.abort)
        if not seat:  # an order came while hands were shaken
            return await connection.close(1012, "service restart")
        setattr(connection, KEY, seat)
        gate.start(ended(connection, seat.done))
        await handler(connection)

    return websockets_serve(talk, *args, process_request=arrive, **kwargs)


async def ended(connection: ServerConnection, done: Callable[[], None]) -> None:
    await connection.wait_closed()
    done()
