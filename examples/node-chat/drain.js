// The drain contract for any Node server that owns its connections; the README says it in words.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';

const why = { 400: 'this is no order or release', 401: 'the bearer token is missing or wrong', 405: 'use GET, PUT or DELETE',
  409: 'there was a newer word', 413: 'the body is too large' };
const whole = (n, most = Number.MAX_SAFE_INTEGER) => Number.isInteger(n) && n >= 0 && n <= most;

export class Gate {
  boot = randomUUID(); // of this process
  held = new Map(); // for each connection the function that asks it to leave, and the machine at its other end
  peers = new Map(); // what was accepted from and refused to each machine, the one that was quiet for longest first
  total = { accepted: 0, evicted: 0, returned: null }; // null until a client is said to return
  word = { rollout: '', epoch: 0, ceiling: null }; // the control plane's last one
  step = Infinity; // of that word; a release comes after every step of its epoch
  draining = false;

  // admit counts a connection in until held.delete(leave); false says: refuse it.
  // From is the remote address of its socket.
  admit(leave, returning, from) {
    const peer = this.peer(from);
    if (this.draining) { peer.refused++; return false; }
    peer.accepted++;
    this.total.accepted++;
    if (returning) this.total.returned = (this.total.returned ?? 0) + 1;
    return this.held.set(leave, peer);
  }

  // peer is the count of a machine; at most 256 are told apart, and who holds nothing makes room.
  peer(from) {
    let name = from?.replace(/^::ffff:(?=[\d.]+$)|%.*/g, '') ?? 'other', peer = this.peers.get(name);
    if (!peer && this.peers.size >= 256) {
      const busy = new Set(this.held.values()), quiet = [...this.peers].find(([key, one]) => key !== 'other' && !busy.has(one));
      if (quiet) this.peers.delete(quiet[0]);
      else peer = this.peers.get(name = 'other');
    }
    this.peers.delete(name);
    this.peers.set(name, peer ??= { accepted: 0, refused: 0 });
    return peer;
  }

  status() {
    const active = this.held.size, state = !this.draining ? 'serving' : active ? 'draining' : 'drained', hold = new Map();
    for (const peer of this.held.values()) hold.set(peer, (hold.get(peer) ?? 0) + 1);
    const peers = Object.fromEntries([...this.peers].map(([name, peer]) => [name, { held: hold.get(peer) ?? 0, ...peer }]));
    return { state, boot: this.boot, active, ...this.total, limit: 0, ...this.word, step: whole(this.step) ? this.step : 0, peers };
  }

  // obey carries out an order (PUT) or a release (DELETE).
  obey(order, { rollout, epoch, step = 0, ceiling = null, over_ms = 0, start_ms = 0 }) {
    const day = 86_400_000, valid = [epoch, step, ceiling ?? 0].every((n) => whole(n)) && whole(over_ms, day) && whole(start_ms, day);
    if (typeof rollout !== 'string' || !valid) return 400;
    if (!order) [step, ceiling] = [Infinity, null];
    if (epoch < this.word.epoch || (epoch === this.word.epoch && step < this.step)) return 409;
    if (epoch === this.word.epoch && step === this.step) return 200; // said again, it changes nothing
    [this.word, this.step, this.draining] = [{ rollout, epoch, ceiling }, step, order];
    this.funnel(ceiling ?? Infinity, over_ms, start_ms);
    return 200;
  }

  // funnel lets all above the ceiling go, one every over/n ms, at random; what ends by itself counts.
  async funnel(ceiling, over, start) {
    const mine = (this.running = {}), all = [...this.held.keys()], distance = over / (all.length - ceiling);
    for (let level = all.length - 1, due = performance.now() + start; level >= ceiling; level--) {
      if (due > performance.now()) await sleep(due - performance.now());
      if (this.running !== mine) return; // there is a newer word
      while (this.held.size > level) {
        const [leave] = all.splice(Math.random() * all.length, 1);
        if (this.held.delete(leave)) { this.total.evicted++; leave(); }
      }
      due = Math.max(due, performance.now() - 20) + distance; // no burst after a standstill
    }
  }

  // endpoint is the server of /drain; without a token it must listen on loopback only.
  endpoint(token) {
    return createServer(async (req, res) => {
      const answer = (code) => res.writeHead(code, { 'Content-Type': 'application/json' })
        .end(JSON.stringify(code === 200 ? this.status() : { error: why[code] }));
      if (token && req.headers.authorization !== `Bearer ${token}`) return answer(401);
      if (req.method === 'GET') return answer(200);
      if (!['PUT', 'DELETE'].includes(req.method)) return answer(405);
      let body = '', word = {};
      for await (const part of req) if ((body += part).length > 65536) return answer(413);
      try { word = Object(JSON.parse(body)); } catch { /* obey says no */ }
      return answer(this.obey(req.method === 'PUT', word));
    });
  }
}
