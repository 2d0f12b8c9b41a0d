"""A chat server with FastAPI that takes part in rollouts: the flags of examples/chat. With --workers there are several processes
behind the port, and one drain endpoint that says their sum."""

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import PlainTextResponse
from flags import flags
from sluice_drain import Gate, returned
from sluice_drain.asgi import DrainMiddleware

o = flags()
gate = Gate(token=o.token, refusal=o.refusal, close=o.close, every=o.every, passes=lambda path: path == "/healthz")
app = FastAPI()
app.add_middleware(DrainMiddleware, gate=gate, listen=o.drain, grace=o.grace)


@app.get("/{path:path}")
async def hello():
    return PlainTextResponse(o.name + "\n", headers={"X-Colour": o.colour})


@app.websocket("/ws")
async def talk(ws: WebSocket):
    await ws.accept()
    if ws.query_params.get("returning") == "1":
        returned(ws)
    try:
        await ws.send_json({"instance": o.name, "colour": o.colour, "version": o.version})
        while True:
            await ws.send_text(await ws.receive_text())
    except WebSocketDisconnect:
        pass


if __name__ == "__main__":
    uvicorn.run("fastapi_chat:app", host=o.listen[0], port=o.listen[1], workers=o.workers, log_level="warning", access_log=False,
                timeout_worker_healthcheck=60)
