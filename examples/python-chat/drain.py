"""The drain contract for any asyncio server that owns its connections; the README says it in words."""

import asyncio
import contextlib
import json
import math
import random


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

    def answer(self, method, body=b""):
        """What a request to /drain gets: the HTTP status, and the body as JSON."""
        if method not in ("GET", "PUT", "DELETE"):
            return 405, {"error": "use GET, PUT or DELETE"}
        word = {}
        with contextlib.suppress(ValueError, TypeError):  # obey says no
            word = dict(json.loads(body))
        error = method != "GET" and self.obey(method == "PUT", **word)
        return error or (200, self.status())

    def obey(self, order, /, rollout=None, epoch=None, step=0, ceiling=None, over_ms=0, start_ms=0, **_):
        """Carries out an order (PUT) or a release (DELETE), or says why not."""
        whole = all(type(n) is int and n >= 0 for n in (epoch, step, 0 if ceiling is None else ceiling, over_ms, start_ms))
        if type(rollout) is not str or not whole or max(over_ms, start_ms) > 86_400_000:
            return 400, {"error": "this is no order or release"}
        if not order:
            step, ceiling = math.inf, None
        if (epoch, step) < (self.word["epoch"], self.step):
            return 409, {"error": "there was a newer word"}
        if (epoch, step) > (self.word["epoch"], self.step):  # else said again, it changes nothing
            self.word, self.step, self.draining = {"rollout": rollout, "epoch": epoch, "ceiling": ceiling}, step, order
            self.drain(ceiling, over_ms / 1000, start_ms / 1000)

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
