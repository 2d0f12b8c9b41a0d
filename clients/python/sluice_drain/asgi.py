"""Middleware for ASGI: FastAPI, Starlette, Django Channels and others, with uvicorn or another server."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .gate import KEY, Gate, Seat

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class DrainMiddleware:
    """Refuses with 503 while draining; lets WebSockets go with 1012, and responses that last by their end.

    app.add_middleware(DrainMiddleware, gate=gate, listen="127.0.0.1:9101"), or DrainMiddleware(app, gate=gate, …) around
    any application, outermost. listen: where the drain endpoint is served while the application runs; None: serve it with
    Gate.listen. grace: seconds for which a SIGTERM is held back from the server, which would close all at once; None: never.
    """

    def __init__(self, app: App, *, gate: Gate, listen: str | None = None, grace: float | None = 60.0) -> None:
        self.app, self.gate, self.listen, self.grace = app, gate, listen, grace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(scope, receive, send)
        elif kind not in ("http", "websocket") or self.gate.passes(scope["path"]):
            await self.app(scope, receive, send)
        else:
            remote = scope["client"][0] if scope.get("client") else None
            visit = (WebSocket if kind == "websocket" else Http)(self.gate, scope, receive, send, remote)
            if not self.gate.refuses(remote):
                await visit.run(self.app)
            else:
                await visit.refuse()

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves the endpoint from startup to shutdown, also of an application that knows no lifespan."""
        endpoint = await self.gate.listen(self.listen) if self.listen else None
        self._hold_back()
        try:
            await self.app(scope, receive, send)
        except Exception:
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    break
        finally:
            if endpoint:
                await endpoint.close()

    def _hold_back(self) -> None:
        if self.grace is None or threading.current_thread() is not threading.main_thread():
            return
        grace, loop, theirs = self.grace, asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

        async def go(*args: Any) -> None:
            await self.gate.shutdown(grace)
            signal.signal(signal.SIGTERM, theirs)
            signal.raise_signal(signal.SIGTERM)

        def ours(*args: Any) -> None:
            signal.signal(signal.SIGTERM, theirs)  # the second time it is theirs
            loop.call_soon_threadsafe(lambda: self.gate.start(go()))

        if theirs is not None:
            signal.signal(signal.SIGTERM, ours)


class Visit:
    """One request or WebSocket on its way through the application."""

    def __init__(self, gate: Gate, scope: Scope, receive: Receive, send: Send, remote: str | None) -> None:
        self.gate, self.scope, self.receive, self._send, self.remote = gate, scope, receive, send, remote
        self.headers = {name.lower(): value for name, value in scope["headers"]}
        self.retry = [(b"retry-after", str(gate.retry_after).encode()), (b"x-sluice-refused", gate.why.encode())]
        self.seat: Seat | None = None
        self.gone = False
        self._task: asyncio.Task[Any] | None = None

    async def run(self, app: App) -> None:
        self._task = asyncio.current_task()
        self.enter()
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:
            if not self.forced:
                raise
        except Exception:
            if not self.gone:
                raise
        finally:
            self.leave_seat()

    forced = False

    def enter(self) -> None: ...

    async def refuse(self) -> None: ...

    async def goodbye(self) -> None: ...

    async def send(self, message: Message) -> None: ...

    def leave_seat(self) -> None:
        self._task = None
        if self.seat:
            self.seat.done()

    def leave(self) -> None:
        self.gate.start(self._leave())

    async def _leave(self) -> None:
        try:
            await self.goodbye()
        except Exception:  # the server says in its own words that the client has gone
            self.force()

    def force(self) -> None:
        if self._task:
            self.forced = True
            self._task.cancel()

    def check(self) -> None:
        if self.gone:
            raise ConnectionResetError("sluice_drain: the connection was let go")


class WebSocket(Visit):
    async def refuse(self) -> None:
        await self.receive()  # websocket.connect
        if self.gate.refusal == 1013:
            await self._send({"type": "websocket.accept"})
            await self._send({"type": "websocket.close", "code": 1013, "reason": "try again later"})
        elif "websocket.http.response" in self.scope.get("extensions", {}):
            await self._send({"type": "websocket.http.response.start", "status": 503, "headers": self.retry})
            await self._send({"type": "websocket.http.response.body", "body": b""})
        else:  # a server without the extension answers 403 to that
            await self._send({"type": "websocket.close"})

    async def send(self, message: Message) -> None:
        self.check()
        await self._send(message)
        if message["type"] == "websocket.accept":
            self.seat = self.gate.admit(self.leave, remote=self.remote, force=self.force)
            self.scope[KEY] = self.seat
            if not self.seat:  # an order came while hands were shaken
                await self.goodbye()

    async def goodbye(self) -> None:
        self.gone = True
        await self._send({"type": "websocket.close", "code": 1012, "reason": "service restart"})


class Http(Visit):
    started = False

    async def refuse(self) -> None:
        head: list[tuple[bytes, bytes]] = [*self.retry, (b"connection", b"close")]
        status, body = 503, b""
        if b"text/event-stream" in self.headers.get(b"accept", b""):  # an EventSource gives up for good after a 503
            status, body = 200, b"retry: %d\n\n" % (self.gate.retry_after * 1000)
            head += [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
            if origin := self.headers.get(b"origin"):
                head += [(b"access-control-allow-origin", origin), (b"access-control-allow-credentials", b"true")]
        head.append((b"content-length", str(len(body)).encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": body})

    def enter(self) -> None:
        self.seat = self.gate.seat(self.remote, self.leave, self.force)
        self.scope[KEY] = self.seat
        self.seat.request()
        self._lasts = asyncio.get_running_loop().call_later(self.gate.long, self.seat.hold)

    def leave_seat(self) -> None:
        self._lasts.cancel()
        super().leave_seat()

    async def send(self, message: Message) -> None:
        self.check()
        self.started = self.started or message["type"] == "http.response.start"
        await self._send(message)
        if message["type"] == "http.response.start" and self.seat:
            if any(name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in message.get("headers", [])):
                self.seat.hold()

    async def goodbye(self) -> None:
        self.gone = True
        if not self.started:
            await self._send({"type": "http.response.start", "status": 503, "headers": self.retry})
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
