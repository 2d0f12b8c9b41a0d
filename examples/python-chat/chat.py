"""A chat server in Python with websockets that takes part in rollouts: examples/chat once more, with the same flags."""

import asyncio
import json
import signal
import sys
from urllib.parse import parse_qs, urlsplit

from flags import flags
from sluice_drain import Gate, returned
from sluice_drain.websockets import serve
from websockets.asyncio.server import broadcast
from websockets.exceptions import ConnectionClosed


async def main(o):
    gate = Gate(token=o.token, refusal=o.refusal, close=o.close, every=o.every, passes=lambda path: path == "/healthz")

    def arrive(connection, request):
        """Says whether a request may become a WebSocket: None says yes."""
        if urlsplit(request.path).path == "/ws":
            return None
        response = connection.respond(200, o.name + "\n")
        response.headers["X-Colour"] = o.colour
        return response

    async def talk(connection):
        if parse_qs(urlsplit(connection.request.path).query).get("returning") == ["1"]:
            returned(connection)
        try:
            await connection.send(json.dumps({"instance": o.name, "colour": o.colour, "version": o.version}))
            async for said in connection:
                if said.startswith("/all "):
                    broadcast(server.connections, said.removeprefix("/all "))
                else:
                    await connection.send(said)
        except ConnectionClosed:
            pass

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await serve(gate, talk, *o.listen, process_request=arrive, compression=None)
    if not o.drain:
        await stop.wait()
        return 0
    await gate.listen(o.drain)
    await stop.wait()
    return 0 if await gate.shutdown(grace=o.grace) else 1


sys.exit(asyncio.run(main(flags())))
