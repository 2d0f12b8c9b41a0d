'use strict';
const { createInterface } = require('node:readline');

// Several processes behind one port have one drain endpoint. The worker that serves it decides for all: the others tell it line
// by line of their connections, and it tells them the word and whom to let go.
class Workers {
  #sockets = new Set();

  constructor(gate) { this.gate = gate; }

  #lines(socket, heard) {
    this.#sockets.add(socket);
    socket.setNoDelay(true).on('error', () => {}).once('close', () => this.#sockets.delete(socket));
    createInterface({ input: socket }).on('line', (line) => {
      try { heard(...JSON.parse(line)); } catch { socket.destroy(); }
    });
    return (...what) => { if (socket.writable) socket.write(`${JSON.stringify(what)}\n`); };
  }

  // join has another worker work for this one.
  join(socket) {
    const { gate } = this, seats = new Map(), waiting = new Map();
    let asked = 0;
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: sluice-worker\r\n\r\n');
    const say = this.#lines(socket, (what, id, remote, ...rest) => {
      if (what === 'heard') waiting.get(id)?.(true);
      else if (what === 'word') this.#adopt(id);
      else if (what === 'ending') link.ending = true;
      else if (what === 'refused') gate.refused(remote);
      else this.#note(link, seats, say, what, id, remote, ...rest);
    });
    const link = {
      ending: false,
      hears: (word, crew) => new Promise((resolve) => {
        const n = ++asked, late = setTimeout(resolve, 1000, false);
        waiting.set(n, (yes) => { clearTimeout(late); waiting.delete(n); resolve(yes); });
        say('word', n, word, crew);
        if (!socket.writable) waiting.get(n)(true); // it is gone
      }),
    };
    gate.workers.add(link);
    gate.crew = gate.workers.size + 1;
    gate.spread();
    socket.once('close', () => {
      gate.workers.delete(link);
      gate.crew = gate.workers.size + 1;
      for (const seat of seats.values()) seat.done();
      for (const heard of waiting.values()) heard(true);
    });
  }

  // note does to another worker's seat here what was done to it there.
  #note(link, seats, say, what, id, remote) {
    if (!seats.has(id)) {
      if (what === 'done') return;
      const seat = this.gate.seat(remote, { leave: () => say('leave', id) }, link);
      seats.set(id, seat);
    }
    const seat = seats.get(id);
    if (what === 'request') seat.request();
    if (what === 'held') seat.hold();
    if (what === 'returned') seat.returned();
    if (what === 'evicted') seat.evict();
    if (what === 'done') { seat.done(); seats.delete(id); }
  }

  // adopt takes over a newer word, which the worker knows from one that decided before this. Nobody goes by it: what is left of
  // that step is ordered anew.
  #adopt(word) {
    const { epoch, step } = { ...word, step: word.step ?? Infinity }, mine = this.gate.word;
    if (epoch > mine.epoch || (epoch === mine.epoch && step > mine.step)) this.gate.believe(word, this.gate.crew);
  }

  // follow has this worker work for another, and returns the socket between them.
  follow(socket) {
    const { gate } = this;
    const say = this.#lines(socket, (what, id, word, crew) => {
      if (what === 'word') { gate.believe(word, crew); say('heard', id); }
      if (what === 'leave') for (const seat of gate.own) if (seat.id === id) { seat.evict(); break; }
    });
    const mine = [...gate.own, ...gate.requests, ...gate.lingering];
    say('word', gate.word);
    for (const seat of mine) {
      if (seat.state === 'request') say('request', seat.id, seat.address);
      else say('held', seat.id, seat.address);
      if (seat.back) say('returned', seat.id, seat.address);
      if (seat.state === 'lingering') say('evicted', seat.id, seat.address);
    }
    if (gate.ending) say('ending');
    gate.head = { tell: say };
    socket.once('close', () => { if (gate.head?.tell === say) gate.head = null; });
    return socket;
  }

  close() { for (const socket of this.#sockets) socket.destroy(); }
}

module.exports = { Workers };
