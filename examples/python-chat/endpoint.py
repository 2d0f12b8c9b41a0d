"""The HTTP endpoint of a gate, for a server that has none to add /drain to."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOST = 65536  # bytes of a body


def serve(gate, address, token=""):
    """Serves /drain from threads of its own; without a token address must be on loopback."""
    loop = asyncio.get_running_loop()

    async def ask(method, body):  # in the loop, where everything of the gate happens
        return gate.answer(method, body)

    class Endpoint(BaseHTTPRequestHandler):
        def handle_any(self):
            size = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(min(size, MOST))
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                code, answer = 401, {"error": "the bearer token is missing or wrong"}
            elif size > MOST:
                code, answer = 413, {"error": "the body is too large"}
            else:
                code, answer = asyncio.run_coroutine_threadsafe(ask(self.command, body), loop).result()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_PUT = do_DELETE = do_POST = do_PATCH = handle_any
        log_message = lambda *_: None

    threading.Thread(target=ThreadingHTTPServer(address, Endpoint).serve_forever, daemon=True).start()
