"""A chat server in Python that takes part in rollouts: examples/chat once more, with the same flags."""

import argparse
import asyncio
import json
import re
import signal
import sys
from urllib.parse import parse_qs, urlsplit

from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed

import drain


def seconds(duration):
    """Reads 500ms, 3s or 1m."""
    n, unit = re.fullmatch(r"([\d.]+)(ms|s|m|h)", duration).groups()
    return float(n) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def address(text):
    host, _, port = text.rpartition(":")
    return host, int(port)


def flags():
    p = argparse.ArgumentParser(prog="chat.py")
    p.add_argument("--name", default="chat-b1")
    p.add_argument("--colour", default="blue")
    p.add_argument("--version", default="v1")
    p.add_argument("--listen", type=address, default=("127.0.0.1", 9001))
    p.add_argument("--drain", type=address, help="address of the drain endpoint; without: drop the connections on SIGTERM")
    p.add_argument("--token", default="", help="what the drain endpoint demands; empty: keep it on loopback")
    p.add_argument("--close", type=int, default=100, help="on SIGTERM without orders: connections to close per --every")
    p.add_argument("--every", type=seconds, default=1.0)
    p.add_argument("--grace", type=seconds, default=60.0, help="on SIGTERM: the longest to wait until empty")
    return p.parse_args()


async def main(o):
    gate, loop = drain.Gate(), asyncio.get_running_loop()
    hello = json.dumps({"instance": o.name, "colour": o.colour, "version": o.version})
    waiting = set()  # tasks, which the loop itself would forget

    def start(task):
        task = loop.create_task(task)
        waiting.add(task)
        task.add_done_callback(waiting.discard)

    def arrive(connection, request):
        """Says whether a request may become a WebSocket: None says yes."""

        def leave():
            start(connection.close(1012, "service restart"))

        async def until_closed():
            await connection.wait_closed()
            gate.held.pop(leave, None)

        url = urlsplit(request.path)
        returning = parse_qs(url.query).get("returning") == ["1"]
        if url.path == "/ws" and gate.admit(leave, returning, connection.remote_address):
            return start(until_closed())
        response = connection.respond(503 if gate.draining else 200, o.name + "\n")
        response.headers["Retry-After" if gate.draining else "X-Colour"] = "1" if gate.draining else o.colour
        return response

    async def talk(connection):
        try:
            await connection.send(hello)
            async for said in connection:
                if said.startswith("/all "):
                    broadcast(server.connections, said.removeprefix("/all "))
                else:
                    await connection.send(said)
        except ConnectionClosed:
            pass

    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await serve(talk, *o.listen, process_request=arrive, close_timeout=1, compression=None)
    if not o.drain:
        await stop.wait()
        return 0
    endpoint = loop.create_task(gate.serve(o.drain, o.token))
    await stop.wait()
    if not gate.draining:  # without orders, by itself
        gate.draining = True
        gate.drain(0, len(gate.held) / o.close * o.every)
    end = loop.time() + o.grace
    while (gate.held or waiting) and loop.time() < end:
        await asyncio.sleep(0.02)
    endpoint.cancel()
    return 1 if gate.held else 0


sys.exit(asyncio.run(main(flags())))
