"""The drain contract for any asyncio server that owns its connections; the README says it in words."""

import asyncio
import math
import random
import uuid
from collections import Counter

from microdot import Microdot

WHY = {400: "this is no order or release", 401: "the bearer token is missing or wrong", 409: "there was a newer word"}


class Gate:
    def __init__(self):
        self.boot = uuid.uuid4().hex  # of this process
        self.held = {}  # for each connection the function that asks it to leave, and the machine at its other end
        self.peers = {}  # what was accepted from and refused to each machine, the one that was quiet for longest first
        self.total = {"accepted": 0, "evicted": 0, "returned": None}  # None until a client is said to return
        self.word = {"rollout": "", "epoch": 0, "ceiling": None}  # the control plane's last one
        self.step = math.inf  # of that word; a release comes after every step of its epoch
        self.draining, self.closing = False, None

    def admit(self, leave, returning=False, remote=None):
        """Counts a connection in until held.pop(leave, None); False says: refuse it. remote is its socket's other end."""
        peer = self.peer(remote[0] if remote else "other")
        peer["refused" if self.draining else "accepted"] += 1
        if not self.draining:
            self.held[leave] = peer
            self.total["accepted"] += 1
            if returning:
                self.total["returned"] = (self.total["returned"] or 0) + 1
        return not self.draining

    def peer(self, name):
        """The count of a machine; at most 256 are told apart, and who holds nothing makes room."""
        name = name.removeprefix("::ffff:").partition("%")[0]
        if name not in self.peers and len(self.peers) >= 256:
            busy = {id(peer) for peer in self.held.values()}
            quiet = next((key for key, one in self.peers.items() if key != "other" and id(one) not in busy), None)
            if quiet:
                del self.peers[quiet]
            else:
                name = "other"
        self.peers[name] = self.peers.pop(name, None) or {"accepted": 0, "refused": 0}
        return self.peers[name]

    def status(self):
        state = "serving" if not self.draining else "draining" if self.held else "drained"
        step = self.step if self.step < math.inf else 0
        hold = Counter(id(peer) for peer in self.held.values())
        peers = {name: {"held": hold[id(peer)], **peer} for name, peer in self.peers.items()}
        return {"state": state, "boot": self.boot, "active": len(self.held), **self.total, "limit": 0, **self.word, "step": step, "peers": peers}

    def obey(self, order, /, rollout=None, epoch=None, step=0, ceiling=None, over_ms=0, start_ms=0, **_):
        """Carries out an order (PUT) or a release (DELETE)."""
        whole = all(type(n) is int and n >= 0 for n in (epoch, step, 0 if ceiling is None else ceiling, over_ms, start_ms))
        if type(rollout) is not str or not whole or max(over_ms, start_ms) > 86_400_000:
            return 400
        step, ceiling = (step, ceiling) if order else (math.inf, None)
        if (epoch, step) < (self.word["epoch"], self.step):
            return 409
        if (epoch, step) > (self.word["epoch"], self.step):  # else said again, it changes nothing
            self.word, self.step, self.draining = {"rollout": rollout, "epoch": epoch, "ceiling": ceiling}, step, order
            self.drain(math.inf if ceiling is None else ceiling, over_ms / 1000, start_ms / 1000)
        return 200

    def drain(self, ceiling, over, start=0):
        """Lets all above the ceiling go within over seconds, in place of what is under way."""
        self.closing = asyncio.create_task(self.funnel(min(ceiling, len(self.held)), over, start))

    async def funnel(self, ceiling, over, start):
        """One goes every over/n seconds, at random; what ends by itself counts."""
        clock, everyone = asyncio.get_running_loop().time, random.sample(list(self.held), len(self.held))
        due, distance = clock() + start, over / max(len(everyone) - ceiling, 1)
        for level in range(len(everyone) - 1, ceiling - 1, -1):
            await asyncio.sleep(due - clock())
            if self.closing is not asyncio.current_task():
                return  # there is a newer word
            while len(self.held) > level:
                leave = everyone.pop()
                if leave in self.held:
                    del self.held[leave]
                    self.total["evicted"] += 1
                    leave()
            due = max(due, clock() - 0.02) + distance  # no burst after a standstill

    async def serve(self, address, token=""):
        """Serves /drain, for a server that cannot add it to its own HTTP; without a token on loopback only."""
        app = Microdot()

        @app.route("/drain", methods=["GET", "PUT", "DELETE"])
        async def answer(request):
            code = 200
            if token and request.headers.get("Authorization") != f"Bearer {token}":
                code = 401
            elif request.method != "GET":
                try:
                    code = self.obey(request.method == "PUT", **request.json)
                except (TypeError, ValueError):
                    code = 400
            return self.status() if code == 200 else {"error": WHY[code]}, code

        await app.start_server(*address)
