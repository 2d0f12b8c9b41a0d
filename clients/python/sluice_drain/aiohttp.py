"""For servers of aiohttp: setup(app, gate, listen=…)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

from .gate import KEY, Gate, Seat

STARTED = "sluice_drain_started"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def setup(app: web.Application, gate: Gate, *, listen: str | None = None, grace: float = 60.0) -> None:
    """Refuses with 503 while draining; lets WebSockets go with 1012, and responses that last by their end. listen: where the
    drain endpoint is served while the application runs. grace: seconds that shutdown has."""

    @web.middleware
    async def drain(request: web.Request, handler: Handler) -> web.StreamResponse:
        if gate.passes(request.path):
            return await handler(request)
        if gate.refuses(request.remote):
            return await refuse(gate, request)
        return await serve(gate, request, handler)

    async def prepared(request: web.Request, response: web.StreamResponse) -> None:
        if isinstance(response, web.WebSocketResponse):
            await welcome(gate, request, response)
        elif seat := request.get(KEY):
            request[STARTED] = response
            if response.content_type == "text/event-stream":
                seat.hold()

    async def endpoint(app: web.Application) -> AsyncIterator[None]:
        opened = await gate.listen(listen) if listen else None
        yield
        if opened:
            await opened.close()

    async def shutdown(app: web.Application) -> None:
        await gate.shutdown(grace)

    app.middlewares.insert(0, drain)
    app.on_response_prepare.append(prepared)
    app.cleanup_ctx.append(endpoint)
    app.on_shutdown.append(shutdown)


async def refuse(gate: Gate, request: web.Request) -> web.StreamResponse:
    headers = {"Retry-After": str(gate.retry_after), "x-sluice-refused": gate.why, "Connection": "close"}
    if gate.refusal == 1013 and request.headers.get("Upgrade", "").lower() == "websocket":
        ws = web.WebSocketResponse()
        request[KEY] = None
        await ws.prepare(request)
        await ws.close(code=1013, message=b"try again later")
        return ws
    if "text/event-stream" not in request.headers.get("Accept", ""):
        return web.Response(status=503, headers=headers)
    if origin := request.headers.get("Origin"):
        headers |= {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
    return web.Response(text=f"retry: {gate.retry_after * 1000}\n\n", headers=headers, content_type="text/event-stream")


async def serve(gate: Gate, request: web.Request, handler: Handler) -> web.StreamResponse:
    """A request is a short one, and held once it lasts; a WebSocket becomes a connection of its own."""
    task, forced = asyncio.current_task(), False

    def force() -> None:
        nonlocal forced
        forced = True
        if task:
            task.cancel()

    seat = gate.seat(request.remote, force, force)
    request[KEY] = seat
    seat.request()
    lasts = asyncio.get_running_loop().call_later(gate.long, seat.hold)
    try:
        return await handler(request)
    except asyncio.CancelledError:
        if not forced or not task or task.uncancel():
            raise
        return request.get(STARTED) or web.Response(status=503, headers={"Retry-After": str(gate.retry_after)})
    finally:
        lasts.cancel()
        seat.done()
        if isinstance(mine := request.get(KEY), Seat):
            mine.done()


async def welcome(gate: Gate, request: web.Request, ws: web.WebSocketResponse) -> None:
    first = request.get(KEY)
    if first is None:
        return  # it is told 1013

    def leave() -> None:
        gate.start(ws.close(code=1012, message=b"service restart"))

    def force() -> None:
        if request.transport:
            request.transport.abort()

    first.done()
    seat = gate.admit(leave, remote=request.remote, force=force)
    request[KEY] = seat or first
    if not seat:  # an order came while hands were shaken
        asyncio.get_running_loop().call_soon(leave)
