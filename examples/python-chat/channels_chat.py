"""A chat server with Django Channels that takes part in rollouts: the flags of examples/chat."""

import django
import uvicorn
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path
from flags import flags
from sluice_drain import Gate
from sluice_drain.asgi import DrainMiddleware

o = flags()
settings.configure(ROOT_URLCONF=(), ALLOWED_HOSTS=["*"])
django.setup()
gate = Gate(token=o.token, refusal=o.refusal, close=o.close, every=o.every, passes=lambda path: path == "/healthz")


class Chat(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        await self.send(text_data)


routes = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter([path("ws", Chat.as_asgi())])})
app = DrainMiddleware(routes, gate=gate, listen=o.drain, grace=o.grace)

uvicorn.run(app, host=o.listen[0], port=o.listen[1], log_level="warning", access_log=False)
