"""A chat server with aiohttp that takes part in rollouts: the flags of examples/chat."""

import sluice_drain.aiohttp
from aiohttp import WSMsgType, web
from flags import flags
from sluice_drain import Gate, returned

o = flags()
gate = Gate(token=o.token, refusal=o.refusal, close=o.close, every=o.every, passes=lambda path: path == "/healthz")


async def talk(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    if request.query.get("returning") == "1":
        returned(request)
    await ws.send_json({"instance": o.name, "colour": o.colour, "version": o.version})
    async for message in ws:
        if message.type == WSMsgType.TEXT:
            await ws.send_str(message.data)
    return ws


async def hello(request):
    return web.Response(text=o.name + "\n", headers={"X-Colour": o.colour})


app = web.Application()
app.add_routes([web.get("/ws", talk), web.get("/{path:.*}", hello)])
sluice_drain.aiohttp.setup(app, gate, listen=o.drain, grace=o.grace)
web.run_app(app, host=o.listen[0], port=o.listen[1], print=None, access_log=None)
