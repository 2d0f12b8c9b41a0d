"""Serves /drain over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hmac
import http
import json
import random
import re
from typing import TYPE_CHECKING

from .peers import named
from .workers import MOST, Head, Worker

if TYPE_CHECKING:
    from .gate import Gate

WHY = {
    400: "this is no order or release", 401: "the bearer token is missing or wrong", 404: "the drain endpoint is /drain",
    403: "without a token the drain endpoint answers direct requests from this machine only", 405: "use GET, PUT or DELETE",
    409: "there was a newer word", 413: "the body is too large", 503: "a worker of this port does not answer",
}
# Who begins to serve the endpoint answers so much later, in seconds: other workers may still run, and tell it first what they
# hold and which word stands. Until then it would call a full port empty.
GATHERING = 0.5
FORWARDED = {"x-forwarded-for", "x-forwarded-proto", "forwarded"}


class Endpoint:
    """What serves /drain at one address. Where another worker of this machine does already, this one works for that, and takes
    its place when it is gone."""

    def __init__(self, gate: Gate, address: str) -> None:
        match = re.fullmatch(r"\[?(.*?)\]?:(\d+)", address)
        if not match:
            raise ValueError(f"sluice_drain: {address} is no address; write it like 127.0.0.1:9101")
        self.gate, self.address, self.host, self.port = gate, address, match[1], int(match[2])
        self._server: asyncio.Server | None = None
        self._answers = 0.0  # from when on, in the loop's time
        self._follows: asyncio.Task[None] | None = None

    async def open(self) -> None:
        for tries in range(20):
            try:
                return await self._take()
            except OSError as err:
                last = err
            await asyncio.sleep(0.1)
        raise OSError(f"sluice_drain: the drain endpoint {self.address} is taken by another program: {last}") from last

    async def close(self) -> None:
        if self._follows:
            self._follows.cancel()
        if self._server:
            self._server.close()

    async def _take(self) -> None:
        self._answers = asyncio.get_running_loop().time() + GATHERING
        try:
            self._server = await asyncio.start_server(self._answer, self.host, self.port, limit=MOST, reuse_port=False)
            return
        except OSError as err:
            if err.errno != errno.EADDRINUSE:
                raise
        head = await self._join()
        self._follows = self.gate.start(self._follow(head))

    async def _join(self) -> Head:
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        reader, writer = await asyncio.open_connection(host, self.port, limit=MOST)
        token = f"Authorization: Bearer {self.gate.token}\r\n" if self.gate.token else ""
        writer.write(f"GET /drain HTTP/1.1\r\nHost: drain\r\nConnection: Upgrade\r\nUpgrade: sluice-worker\r\n{token}\r\n".encode())
        try:
            answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 1)
            if not answer.startswith(b"HTTP/1.1 101 "):
                raise ConnectionError(f"it answers {answer[:40]!r}")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError) as err:
            writer.close()
            raise ConnectionError(str(err)) from err
        return Head(self.gate, reader, writer)

    async def _follow(self, head: Head) -> None:
        while True:
            await head.run()
            while True:
                await asyncio.sleep(0.05 + random.random() * 0.05)
                with contextlib.suppress(OSError):
                    return await self._take()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ")
                headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                code = self._allowed(headers, writer)
                if code == 200 and headers.get("upgrade") == "sluice-worker":
                    code = 101 if named(writer.get_extra_info("peername")[0]) == named(writer.get_extra_info("sockname")[0]) else 403
                elif code == 200:
                    await asyncio.sleep(self._answers - asyncio.get_running_loop().time())
                    code = await self._obey(method, target, headers, reader)
            if code == 101:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: sluice-worker\r\n\r\n")
                return await Worker(self.gate, reader, writer).run()
            body = json.dumps(self.gate.status() if code == 200 else {"error": WHY[code]}).encode()
            more = {401: "WWW-Authenticate: Bearer\r\n", 405: "Allow: GET, PUT, DELETE\r\n"}.get(code, "")
            writer.write(f"HTTP/1.1 {code} {http.HTTPStatus(code).phrase}\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
                         f"Content-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n".encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, OSError, ValueError):
            pass  # that is no HTTP, or it has gone
        finally:
            writer.close()

    def _allowed(self, headers: dict[str, str], writer: asyncio.StreamWriter) -> int:
        if self.gate.token:
            shown = headers.get("authorization", "").encode("latin-1")
            return 200 if hmac.compare_digest(shown, f"Bearer {self.gate.token}".encode()) else 401
        near = named(writer.get_extra_info("peername")[0])
        return 200 if (near.startswith("127.") or near == "::1") and not FORWARDED & set(headers) else 403

    async def _obey(self, method: str, target: str, headers: dict[str, str], reader: asyncio.StreamReader) -> int:
        if target.partition("?")[0] != "/drain":
            return 404
        if method in ("PUT", "DELETE"):
            length = headers.get("content-length", "")
            if not length.isdecimal() or len(length) > 15:
                return 400
            if int(length) > MOST:
                return 413
            try:
                said = json.loads(await reader.readexactly(int(length)))
            except (ValueError, RecursionError):
                return 400
            code = self.gate.obey(method == "PUT", said)
            if code != 200:
                return code
        elif method != "GET":
            return 405
        return 200 if await self.gate.spread() else 503
