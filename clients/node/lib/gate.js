'use strict';
const { randomUUID } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');
const adapters = require('./adapters.js');
const { serve } = require('./endpoint.js');
const { Peers } = require('./peers.js');
const { Seat } = require('./seat.js');

const day = 86_400_000;
const words = new Set(['rollout', 'epoch', 'step', 'ceiling', 'over_ms', 'start_ms', 'order']);
const whole = (n, most = Number.MAX_SAFE_INTEGER) => Number.isInteger(n) && n >= 0 && n <= most;
const defaults = {
  limit: 0, token: '', closeWait: 1000, retryAfter: 1, refusal: 503, close: 100, every: 1000, long: 10_000, pass: () => false,
};

// Gate holds the connections of one process, or of all workers behind one port, and lets them go at the pace that is ordered.
class Gate {
  boot = randomUUID(); // of this process
  held = new Set(); // what lasts and can be picked, of all workers
  own = new Set(); // … of this one
  requests = new Set();
  lingering = new Set();
  peers = new Peers();
  total = { accepted: 0, evicted: 0, refused: 0, returned: null }; // null until a client is said to return
  word = { rollout: '', epoch: 0, step: Infinity, ceiling: null, ordered: false }; // the last one; a release is after every step
  ending = false;
  head = null; // the worker that decides, if it is another
  workers = new Set(); // the others, if it is this one
  crew = 1; // how many there are
  #seats = 0;

  constructor(options = {}) {
    for (const key of Object.keys(options)) if (!(key in defaults)) throw new TypeError(`sluice-drain: there is no option ${key}`);
    this.options = { ...defaults, ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) };
    if (![503, 1013].includes(this.options.refusal)) throw new TypeError('sluice-drain: refusal is 503 or 1013');
  }

  get draining() { return this.word.ordered || this.ending; }

  get active() { return this.held.size; }

  // refuses says whether a connection from there would be refused now, and counts it as refused then.
  refuses(remote) {
    if (!this.draining && (!this.options.limit || this.own.size < this.options.limit)) return false;
    this.refused(remote);
    this.head?.tell('refused', 0, remote);
    return true;
  }

  refused(remote) {
    this.total.refused++;
    this.peers.of(remote).refused++;
  }

  // admit counts a connection in that the author's server owns; null says: refuse it.
  admit({ remote, leave, force } = {}) {
    if (this.refuses(remote)) return null;
    const seat = this.seat(remote, { leave, force });
    seat.hold();
    return seat;
  }

  seat(remote, acts, link) { return new Seat(this, ++this.#seats, remote, acts, link); }

  http(server) { return adapters.http(this, server); }

  ws(server) { return adapters.ws(this, server); }

  socketio(io) { return adapters.socketio(this, io); }

  listen(address) { return serve(this, address); }

  status() {
    const active = this.held.size, requests = this.requests.size, lingering = this.lingering.size;
    const { rollout, epoch, ordered, ...word } = this.word;
    const draining = ordered || (this.ending && [...this.workers].every((one) => one.ending));
    return {
      state: !draining ? 'serving' : active + requests + lingering ? 'draining' : 'drained',
      boot: this.boot, active, requests, lingering, ...this.total, limit: this.options.limit * this.crew,
      ceiling: draining && !ordered ? 0 : word.ceiling, rollout, epoch, step: whole(word.step) ? word.step : 0, peers: this.peers.said(),
    };
  }

  // obey carries out an order (PUT) or a release (DELETE): 200, or why not.
  obey(order, said) {
    const { rollout, epoch, step = 0, ceiling = null, over_ms = 0, start_ms = 0, order: pick = 'random' } = said ?? {};
    const numbers = [epoch, step, ceiling ?? 0].every((n) => whole(n)) && whole(over_ms, day) && whole(start_ms, day);
    if (typeof rollout !== 'string' || !numbers || typeof pick !== 'string' || Object.keys(said).some((name) => !words.has(name))) return 400;
    const word = order ? { rollout, epoch, step, ceiling, ordered: true } : { rollout, epoch, step: Infinity, ceiling: null, ordered: false };
    if (!newer(word, this.word)) return newer(this.word, word) ? 409 : 200; // said again, it changes nothing
    this.word = word;
    this.settle = this.spread();
    if (ceiling !== null && order) this.#funnel(this.held, ceiling, over_ms, start_ms, pick);
    else this.running = null;
    if (!order && this.ending) this.#ownPace();
    return 200;
  }

  // believe takes over the word of the worker that decides.
  believe(word, crew) {
    this.crew = crew;
    const next = { ...word, step: word.step ?? Infinity }, ordered = this.word.ordered;
    this.word = next;
    if (!this.ending || ordered === next.ordered) return;
    if (next.ordered) this.running = null;
    else this.#ownPace();
  }

  // spread tells the other workers the word; false when one of them has not answered within a second.
  async spread() {
    const answers = await Promise.all([...this.workers].map((one) => one.hears(this.word, this.crew)));
    return answers.every(Boolean);
  }

  // funnel lets all above the ceiling go, one every over/n ms; what ends by itself counts.
  async #funnel(pool, ceiling, over, start, pick) {
    const mine = (this.running = {}), began = performance.now();
    await this.settle;
    if (this.running !== mine) return;
    const all = [...pool], distance = over / (all.length - ceiling);
    for (let level = all.length - 1, due = began + start; level >= ceiling; level--) {
      if (due > performance.now()) await sleep(due - performance.now());
      if (this.running !== mine) return; // there is a newer word
      while (pool.size > level) {
        const [seat] = pick === 'oldest' ? all.splice(0, 1) : all.splice(Math.random() * all.length, 1);
        if (pool.has(seat)) seat.evict();
      }
      due = Math.max(due, performance.now() - 20) + distance; // no burst after a standstill
    }
  }

  #ownPace() {
    const { close, every } = this.options, distance = (every / close) * this.crew; // the others go, too
    this.#funnel(this.own, 0, this.own.size * distance, Math.random() * distance);
  }

  // shutdown refuses new connections and lets all of this process go: as ordered, or at its own pace. It says whether none
  // is left after the grace period.
  async shutdown({ grace = Infinity } = {}) {
    const end = performance.now() + grace;
    if (!this.ending) {
      this.ending = true;
      this.head?.tell('ending');
      if (!this.word.ordered) this.#ownPace();
    }
    const left = () => [this.held, this.requests, this.lingering].some((set) => [...set].some((seat) => !seat.link));
    while (left() && performance.now() < end) await sleep(20);
    return !left();
  }
}

const newer = (a, b) => a.epoch > b.epoch || (a.epoch === b.epoch && a.step > b.step);

module.exports = { Gate, newer };
