"""The drain contract for any asyncio server that owns its connections; the README says it in words."""

import asyncio
import contextlib
import json
import math
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WHY = {400: "this is no order or release", 401: "the bearer token is missing or wrong", 405: "use GET, PUT or DELETE",
       409: "there was a newer word", 413: "the body is too large"}


class Gate:
    def __init__(self):
        self.held = set()  # for each connection the function that asks it to leave
        self.total = {"accepted": 0, "evicted": 0, "returned": 0}
        self.word = {"rollout": "", "epoch": 0, "ceiling": None}  # the control plane's last one
        self.step = math.inf  # of that word; a release comes after every step of its epoch
        self.draining, self.closing = False, None

    def admit(self, leave, returning=False):
        """Counts a connection in until held.discard(leave); False says: refuse it."""
        if self.draining:
            return False
        self.held.add(leave)
        self.total["accepted"] += 1
        self.total["returned"] += returning
        return True

    def status(self):
        state = "serving" if not self.draining else "draining" if self.held else "drained"
        step = self.step if self.step < math.inf else 0
        return {"state": state, "active": len(self.held), **self.total, "limit": 0, **self.word, "step": step}

    def obey(self, order, /, rollout=None, epoch=None, step=0, ceiling=None, over_ms=0, start_ms=0, **_):
        """Carries out an order (PUT) or a release (DELETE)."""
        whole = all(type(n) is int and n >= 0 for n in (epoch, step, 0 if ceiling is None else ceiling, over_ms, start_ms))
        if type(rollout) is not str or not whole or max(over_ms, start_ms) > 86_400_000:
            return 400
        if not order:
            step, ceiling = math.inf, None
        if (epoch, step) < (self.word["epoch"], self.step):
            return 409
        if (epoch, step) > (self.word["epoch"], self.step):  # else said again, it changes nothing
            self.word, self.step, self.draining = {"rollout": rollout, "epoch": epoch, "ceiling": ceiling}, step, order
            self.drain(ceiling, over_ms / 1000, start_ms / 1000)
        return 200

    def drain(self, ceiling, over, start):
        """Lets all above the ceiling go, in place of what is under way; None: nobody."""
        if self.closing:
            self.closing.cancel()
        self.closing = asyncio.create_task(self.funnel(len(self.held) if ceiling is None else ceiling, over, start))

    async def funnel(self, ceiling, over, start):
        """One goes every over/n seconds, at random; what ends by itself counts."""
        clock, everyone = asyncio.get_running_loop().time, random.sample(list(self.held), len(self.held))
        due, distance = clock() + start, over / max(len(everyone) - ceiling, 1)
        for level in range(len(everyone) - 1, ceiling - 1, -1):
            await asyncio.sleep(due - clock())
            while len(self.held) > level:
                leave = everyone.pop()
                if leave in self.held:
                    self.held.remove(leave)
                    self.total["evicted"] += 1
                    leave()
            due = max(due, clock() - 0.02) + distance  # no burst after a standstill


def endpoint(gate, address, token=""):
    """Serves /drain from threads of its own; without a token address must be on loopback."""
    loop = asyncio.get_running_loop()

    async def hear(method, word):  # in the loop, where everything of the gate happens
        return 200 if method == "GET" else gate.obey(method == "PUT", **word), gate.status()

    class Endpoint(BaseHTTPRequestHandler):
        def answer(self):
            size, code = int(self.headers.get("Content-Length", 0)), 200
            body, word = self.rfile.read(min(size, 65536)) or b"{}", {}
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                code = 401
            elif self.command not in ("GET", "PUT", "DELETE") or size > 65536:
                code = 413 if size > 65536 else 405
            else:
                with contextlib.suppress(ValueError, TypeError):  # obey says no
                    word = dict(json.loads(body))
                code, status = asyncio.run_coroutine_threadsafe(hear(self.command, word), loop).result()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(status if code == 200 else {"error": WHY[code]}).encode())

        do_GET = do_PUT = do_DELETE = do_POST = do_PATCH = answer
        log_message = lambda *_: None

    threading.Thread(target=ThreadingHTTPServer(address, Endpoint).serve_forever, daemon=True).start()
