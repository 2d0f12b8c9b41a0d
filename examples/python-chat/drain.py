"""The drain contract for any asyncio server that owns its connections; the README says it in words."""

import asyncio
import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DAY = 86_400_000


class Gate:
    def __init__(self):
        self.held = set()  # for each connection the function that asks it to leave
        self.total = {"accepted": 0, "evicted": 0, "returned": 0}
        self.word = {"rollout": "", "epoch": 0, "step": 0, "ceiling": None}  # the control plane's last one
        self.draining, self.closing = False, None

    def admit(self, leave, returning=False):
        """Counts a connection in until held.discard(leave); False says: refuse it."""
        if not self.draining:
            self.held.add(leave)
            self.total["accepted"] += 1
            self.total["returned"] += returning
        return not self.draining

    def status(self):
        state = "serving" if not self.draining else "draining" if self.held else "drained"
        return {"state": state, "active": len(self.held), **self.total, "limit": 0, **self.word}

    def obey(self, method, word):
        """Carries out an order (PUT) or a release (DELETE); False says: there was a newer word."""
        last, order, epoch, step = self.word, method == "PUT", word["epoch"], word.get("step", 0)
        if epoch < last["epoch"] or order and epoch == last["epoch"] and (not self.draining or step < last["step"]):
            return False
        if not (order and epoch == last["epoch"] and step == last["step"]):  # said again, it changes nothing
            ceiling = word.get("ceiling") if order else None
            self.word = {"rollout": word["rollout"], "epoch": epoch, "step": step if order else 0, "ceiling": ceiling}
            self.draining = order
            self.drain(ceiling, word.get("over_ms", 0) / 1000, word.get("start_ms", 0) / 1000)
        return True

    def drain(self, ceiling, over, start):
        """Lets all above the ceiling go, in place of what is under way; None: nobody."""
        if self.closing:
            self.closing.cancel()
        self.closing = None if ceiling is None else asyncio.create_task(self.funnel(ceiling, over, start))

    async def funnel(self, ceiling, over, start):
        """One goes every over/n seconds, at random; what ends by itself counts."""
        clock, every = asyncio.get_running_loop().time, list(self.held)
        random.shuffle(every)
        due, distance = clock() + start, over / max(len(every) - ceiling, 1)
        for level in range(len(every) - 1, ceiling - 1, -1):
            await asyncio.sleep(due - clock())
            while len(self.held) > level:
                leave = every.pop()
                if leave in self.held:
                    self.held.remove(leave)
                    self.total["evicted"] += 1
                    leave()
            due = max(due, clock() - 0.02) + distance  # no burst after a standstill


def endpoint(gate, address, token=""):
    """Serves /drain from a thread of its own; without a token address must be on loopback."""
    loop = asyncio.get_running_loop()  # everything of the gate happens there

    async def say(method, word):
        return (200 if method == "GET" or gate.obey(method, word) else 409), gate.status()

    class Endpoint(BaseHTTPRequestHandler):
        def handle_any(self):
            size, method = int(self.headers.get("Content-Length", 0)), self.command
            word = parse(self.rfile.read(size)) if size <= 65536 else None
            if token and self.headers.get("Authorization") != f"Bearer {token}":
                code, body = 401, {"error": "the bearer token is missing or wrong"}
            elif method not in ("GET", "PUT", "DELETE"):
                code, body = 405, {"error": "use GET, PUT or DELETE"}
            elif method != "GET" and not valid(method, word):
                code, body = 413 if size > 65536 else 400, {"error": "the body is no order or release"}
            else:
                code, body = asyncio.run_coroutine_threadsafe(say(method, word), loop).result()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        do_GET = do_PUT = do_DELETE = do_POST = do_PATCH = handle_any

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(address, Endpoint)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()


def parse(body):
    try:
        return json.loads(body)
    except ValueError:
        return None


def valid(method, word):
    def whole(name, least, most=2**63 - 1, default=0):
        n = word.get(name, default)
        return type(n) is int and least <= n <= most

    if not isinstance(word, dict) or not isinstance(word.get("rollout"), str):
        return False
    if method == "DELETE":
        return whole("epoch", 0)
    level = word.get("ceiling") is None or whole("ceiling", 0)
    return level and word["rollout"] != "" and whole("epoch", 1) and whole("step", 0) and whole("over_ms", 0, DAY) and whole("start_ms", 0, DAY)
