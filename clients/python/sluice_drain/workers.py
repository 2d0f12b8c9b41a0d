"""Several processes behind one port have one drain endpoint. The worker that serves it decides for all: the others tell it line by
line of their connections, and it tells them the word and whom to let go."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from .gate import Seat, Word, age

if TYPE_CHECKING:
    from .gate import Gate

MOST = 65_536  # bytes of a line


class Line:
    """A connection to another worker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *what: Any) -> None:
        if not self.writer.is_closing():
            self.writer.write(json.dumps(what).encode() + b"\n")

    async def read(self) -> list[Any] | None:
        try:
            line = await self.reader.readline()
            return list(json.loads(line)) if line.endswith(b"\n") else None
        except (OSError, ValueError):
            return None


class Worker(Line):
    """Another worker, which works for this one."""

    def __init__(self, gate: Gate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.gate, self.ending = gate, False
        self.seats: dict[int, Seat] = {}
        self.asked, self.waiting = 0, dict[int, asyncio.Future[bool]]()

    async def run(self) -> None:
        self.gate.workers.add(self)
        self.gate.crew = len(self.gate.workers) + 1
        self.gate.start(self.gate.spread())
        try:
            while said := await self.read():
                self._note(*said)
        except (TypeError, ValueError):
            pass  # that is no worker of ours
        finally:
            self.gate.workers.discard(self)
            self.gate.crew = len(self.gate.workers) + 1
            for seat in list(self.seats.values()):
                seat.done()
            for heard in self.waiting.values():
                if not heard.done():
                    heard.set_result(True)  # it is gone
            self.writer.close()

    async def hears(self, word: Word, crew: int) -> bool:
        """Tells the word; False when it has not answered within a second."""
        self.asked += 1
        heard = self.waiting[self.asked] = asyncio.get_running_loop().create_future()
        number = self.asked
        self.say("word", number, word, crew)
        try:
            return await asyncio.wait_for(heard, 1)
        except TimeoutError:
            return False
        finally:
            del self.waiting[number]

    def _note(self, what: str, number: Any = 0, remote: str | None = None) -> None:
        if what == "heard":
            if (heard := self.waiting.get(number)) and not heard.done():
                heard.set_result(True)
        elif what == "word":
            # It knows a newer one from a worker that decided before this. Nobody goes by it: what is left of that step is
            # ordered anew.
            if age(number) > age(self.gate.word):
                self.gate.believe(number, self.gate.crew)
        elif what == "ending":
            self.ending = True
        elif what == "refused":
            self.gate.note_refused(remote)
        elif what == "done":
            if seat := self.seats.pop(number, None):
                seat.done()
        else:
            if number not in self.seats:
                self.seats[number] = self.gate.seat(remote, lambda: self.say("leave", number), worker=self)
            {"request": Seat.request, "held": Seat.hold, "returned": Seat.returned, "evicted": Seat.evict}[what](self.seats[number])


class Head(Line):
    """The worker that decides, for which this one works."""

    def __init__(self, gate: Gate, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self.gate = gate

    def tell(self, what: str, number: int, remote: str | None) -> None:
        self.say(what, number, remote)

    async def run(self) -> None:
        """Returns when it is gone."""
        gate = self.gate
        self.say("word", gate.word)
        for seat in [*gate.own, *gate.requests, *gate.lingering]:
            if seat.worker:
                continue
            self.tell("request" if seat.state == "request" else "held", seat.number, seat.remote)
            if seat.back:
                self.tell("returned", seat.number, seat.remote)
            if seat.state == "lingering":
                self.tell("evicted", seat.number, seat.remote)
        if gate.ending:
            self.tell("ending", 0, None)
        gate.head = self
        try:
            while said := await self.read():
                if said[0] == "word":
                    gate.believe(said[2], said[3])
                    self.say("heard", said[1])
                elif said[0] == "leave":
                    for seat in gate.own:
                        if seat.number == said[1]:
                            seat.evict()
                            break
        finally:
            if gate.head is self:
                gate.head = None
            self.writer.close()
