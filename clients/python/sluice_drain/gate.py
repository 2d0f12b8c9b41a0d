"""What is held, what was ordered, and who goes when."""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .peers import Peers

if TYPE_CHECKING:
    from .endpoint import Endpoint
    from .workers import Head, Worker

DAY = 86_400_000
WORDS = {"rollout", "epoch", "step", "ceiling", "over_ms", "start_ms", "order"}
KEY = "sluice_drain"  # where a Seat is in an ASGI scope or an aiohttp request
Word = dict[str, Any]


def nothing() -> None:
    pass


class Seat:
    """One connection, or one request under way, that was let in. It is a short request first or held at once; held, it can be
    picked; picked, it lingers until it has ended."""

    def __init__(self, gate: Gate, number: int, remote: str | None, leave: Callable[[], object], force: Callable[[], object],
                 worker: Worker | None = None) -> None:
        self.gate, self.number, self.remote, self.leave, self.force, self.worker = gate, number, remote, leave, force, worker
        self.peer = gate.peers.of(remote)
        self.peer.held += 1
        self.state, self.back = "new", False
        self.timer: asyncio.TimerHandle | None = None

    def request(self) -> None:
        self.state = "request"
        self.gate.requests.add(self)
        self._tell("request")

    def hold(self) -> None:
        """Says that it lasts. A short request is not held."""
        if self.state not in ("new", "request"):
            return
        self.gate.requests.discard(self)
        self.state = "held"
        self.gate.held[self] = None
        if not self.worker:
            self.gate.own[self] = None
        self.gate.accepted += 1
        self.peer.accepted += 1
        self._tell("held")

    def returned(self) -> None:
        """Says that the client was connected to this service before."""
        if not self.back:
            self.back = True
            self.gate.returned = (self.gate.returned or 0) + 1
            self._tell("returned")

    def evict(self) -> None:
        """Has it say goodbye. One that has not gone close_wait later is ended."""
        if self.state != "held":
            return
        self.state = "lingering"
        self.gate.held.pop(self, None)
        self.gate.own.pop(self, None)
        self.gate.lingering.add(self)
        self.gate.evicted += 1
        self._tell("evicted")
        if not self.worker:
            self.timer = asyncio.get_running_loop().call_later(self.gate.close_wait, self.force)
        self.leave()

    def done(self) -> None:
        """Says that it has ended, whoever ended it."""
        if self.state == "done":
            return
        self.state = "done"
        self.peer.held -= 1
        if self.timer:
            self.timer.cancel()
        self.gate.requests.discard(self)
        self.gate.lingering.discard(self)
        self.gate.held.pop(self, None)
        self.gate.own.pop(self, None)
        self._tell("done")

    def _tell(self, what: str) -> None:
        if not self.worker and self.gate.head:
            self.gate.head.tell(what, self.number, self.remote)


class Gate:
    """Holds the connections of one process, or of all workers behind one port, and lets them go at the pace that is ordered.

    limit: most connections that one process holds; above it new ones are refused; 0 is no limit.
    token: of the drain endpoint, which without one answers direct requests from this machine only.
    close_wait: seconds that who was told to go has for its own goodbye.
    retry_after: whole seconds that who is refused is told to wait.
    refusal: how a WebSocket is refused: by HTTP 503, or accepted and closed with 1013; counted as refused either way.
    close, every: on shutdown without orders, connections per seconds.
    long: a response that runs for more seconds counts as a connection and can be let go.
    passes: which paths are served whatever is ordered, such as that of a health check.
    """

    def __init__(self, *, limit: int = 0, token: str = "", close_wait: float = 1.0, retry_after: int = 1, refusal: int = 503,
                 close: int = 100, every: float = 1.0, long: float = 10.0, passes: Callable[[str], bool] = lambda path: False) -> None:
        if refusal not in (503, 1013):
            raise ValueError("sluice_drain: refusal is 503 or 1013")
        self.limit, self.token, self.close_wait, self.retry_after, self.refusal = limit, token, close_wait, retry_after, refusal
        self.close, self.every, self.long, self.passes = close, every, long, passes
        self.boot = uuid.uuid4().hex  # of this process
        self.held: dict[Seat, None] = {}  # what lasts and can be picked, of all workers, in the order of arrival
        self.own: dict[Seat, None] = {}  # … of this one
        self.requests: set[Seat] = set()
        self.lingering: set[Seat] = set()
        self.peers = Peers()
        self.accepted, self.evicted, self.refused = 0, 0, 0
        self.returned: int | None = None  # None until a client is said to return
        self.word: Word = {"rollout": "", "epoch": 0, "step": None, "ceiling": None, "ordered": False}  # the last one
        self.ending = False
        self.head: Head | None = None  # the worker that decides, if it is another
        self.workers: set[Worker] = set()  # the others, if it is this one
        self.crew = 1  # how many there are
        self._seats = 0
        self._funnel: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()  # which the loop itself would forget

    @property
    def draining(self) -> bool:
        """New connections are refused: by order, or because of shutdown."""
        return bool(self.word["ordered"]) or self.ending

    @property
    def active(self) -> int:
        """What is held and lasts."""
        return len(self.held)

    def refuses(self, remote: str | None) -> bool:
        """Whether a connection from there would be refused now; counts it as refused then."""
        if not self.draining and (not self.limit or len(self.own) < self.limit):
            return False
        self.note_refused(remote)
        if self.head:
            self.head.tell("refused", 0, remote)
        return True

    @property
    def why(self) -> str:
        """Why a connection is refused, in the header x-sluice-refused: a proxy may send it to another instance."""
        return "draining" if self.draining else "full"

    def note_refused(self, remote: str | None) -> None:
        self.refused += 1
        self.peers.of(remote).refused += 1

    def admit(self, leave: Callable[[], object], *, remote: str | None = None, force: Callable[[], object] = nothing) -> Seat | None:
        """Counts a connection in that the author's server owns; None says: refuse it. leave is called once, in the loop, and
        has the connection say goodbye; force ends it close_wait later. Call Seat.done when it has ended."""
        if self.refuses(remote):
            return None
        seat = self.seat(remote, leave, force)
        seat.hold()
        return seat

    def seat(self, remote: str | None, leave: Callable[[], object], force: Callable[[], object] = nothing,
             worker: Worker | None = None) -> Seat:
        self._seats += 1
        return Seat(self, self._seats, remote, leave, force, worker)

    def start(self, coroutine: Any) -> asyncio.Task[Any]:
        """Runs it, and keeps it until it is over."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def listen(self, address: str) -> Endpoint:
        """Serves /drain at host:port, or works for the worker that does."""
        from .endpoint import Endpoint

        endpoint = Endpoint(self, address)
        await endpoint.open()
        return endpoint

    def status(self) -> dict[str, Any]:
        w, held = self.word, len(self.held) + len(self.requests) + len(self.lingering)
        draining = w["ordered"] or (self.ending and all(one.ending for one in self.workers))
        return {
            "state": "serving" if not draining else "draining" if held else "drained", "boot": self.boot,
            "active": len(self.held), "requests": len(self.requests), "lingering": len(self.lingering),
            "accepted": self.accepted, "evicted": self.evicted, "refused": self.refused, "returned": self.returned,
            "limit": self.limit * self.crew, "ceiling": 0 if draining and not w["ordered"] else w["ceiling"],
            "rollout": w["rollout"], "epoch": w["epoch"], "step": w["step"] or 0, "peers": self.peers.said(),
        }

    def obey(self, order: bool, said: Any) -> int:
        """Carries out an order (PUT) or a release (DELETE): 200, or why not."""
        if type(said) is not dict or not set(said) <= WORDS:
            return 400
        rollout, epoch, step, ceiling = said.get("rollout"), said.get("epoch"), said.get("step", 0), said.get("ceiling")
        over, start, pick = said.get("over_ms", 0), said.get("start_ms", 0), said.get("order", "random")
        numbers = all(type(n) is int and 0 <= n < 2**63 for n in (epoch, step, ceiling or 0, over, start))
        if type(rollout) is not str or type(pick) is not str or not numbers or max(over, start) > DAY:
            return 400
        word: Word = {"rollout": rollout, "epoch": epoch, "step": step if order else None, "ceiling": ceiling if order else None,
                      "ordered": order}
        if age(word) <= age(self.word):
            return 409 if age(word) < age(self.word) else 200  # said again, it changes nothing
        self.word = word
        if order and ceiling is not None:
            self._funnel = self.start(self._let_go(self.held, ceiling, over / 1000, start / 1000, pick))
        else:
            self._funnel = None
            if not order and self.ending:
                self._own_pace()
        return 200

    def believe(self, word: Word, crew: int) -> None:
        """Takes over the word of the worker that decides."""
        was, self.word, self.crew = self.word, word, crew
        if self.ending and was["ordered"] != word["ordered"]:
            if word["ordered"]:
                self._funnel = None
            else:
                self._own_pace()

    async def spread(self) -> bool:
        """Tells the other workers the word; False when one of them has not answered within a second."""
        return all(await asyncio.gather(*(one.hears(self.word, self.crew) for one in self.workers)))

    async def _let_go(self, pool: dict[Seat, None], ceiling: int, over: float, start: float, pick: str) -> None:
        """Lets all above the ceiling go, one every over/n seconds; what ends by itself counts."""
        clock = asyncio.get_running_loop().time
        due = clock() + start
        await self.spread()
        everyone = list(pool)
        if pick == "oldest":
            everyone.reverse()
        else:
            random.shuffle(everyone)
        distance = over / max(len(everyone) - ceiling, 1)
        for level in range(len(everyone) - 1, ceiling - 1, -1):
            await asyncio.sleep(due - clock())
            if self._funnel is not asyncio.current_task():
                return  # there is a newer word
            while len(pool) > level:
                seat = everyone.pop()
                if seat in pool:
                    seat.evict()
            due = max(due, clock() - 0.02) + distance  # no burst after a standstill

    def _own_pace(self) -> None:
        distance = self.every / self.close * self.crew  # the others go, too
        self._funnel = self.start(self._let_go(self.own, 0, len(self.own) * distance, random.random() * distance, "random"))

    async def shutdown(self, grace: float = math.inf) -> bool:
        """Refuses new connections and lets all of this process go: as ordered, or at its own pace. Says whether none is left
        after grace seconds."""
        clock = asyncio.get_running_loop().time
        end = clock() + grace
        if not self.ending:
            self.ending = True
            if self.head:
                self.head.tell("ending", 0, None)
            if not self.word["ordered"]:
                self._own_pace()

        def left() -> bool:
            return any(not seat.worker for seats in (self.held, self.requests, self.lingering) for seat in seats)

        while left() and clock() < end:
            await asyncio.sleep(0.02)
        return not left()


def age(word: Word) -> tuple[int, float]:
    """Words are newer the larger it is; a release comes after every step of its epoch."""
    return word["epoch"], math.inf if word["step"] is None else word["step"]


def returned(client: Any) -> None:
    """Says that a client was connected to this service before: a connection of websockets, an ASGI scope or what has one
    (a WebSocket of Starlette or FastAPI, a consumer of Channels), a request of aiohttp."""
    client = getattr(client, "scope", client)
    seat = client.get(KEY) if isinstance(client, Mapping) else getattr(client, KEY, None)
    if isinstance(seat, Seat):
        seat.returned()
