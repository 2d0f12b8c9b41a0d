"""One client of each library, as its documentation begins: python3 clients.py HOST:PORT"""

import asyncio
import sys
import threading

import paho.mqtt.client as mqtt
import websocket
from websockets.asyncio.client import connect

host, port = sys.argv[1].split(":")
ws = f"ws://{host}:{port}"


async def websockets():
    async for one in connect(f"{ws}/python-websockets"):
        try:
            async for _ in one:
                pass
        except Exception:
            pass


def websocket_client():
    websocket.WebSocketApp(f"{ws}/websocket-client").run_forever(reconnect=1)


def paho():
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport="websockets")
    client.ws_set_options(path="/mqtt")
    client.connect(host, int(port))
    client.loop_forever()


async def main():
    for run in (websocket_client, paho):
        threading.Thread(target=run, daemon=True).start()
    await websockets()


asyncio.run(main())
