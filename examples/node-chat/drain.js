// The drain contract for any Node server that owns its connections; the README says it in words.
import { createServer } from 'node:http';

export class Gate {
  held = new Set(); // for each connection the function that asks it to leave
  total = { accepted: 0, evicted: 0, returned: 0 };
  word = { rollout: '', epoch: 0, step: 0, ceiling: null }; // the control plane's last one
  draining = false;

  // admit counts a connection in until held.delete(leave); false says: refuse it.
  admit(leave, returning) {
    if (this.draining) return false;
    this.total.accepted++;
    if (returning) this.total.returned++;
    return this.held.add(leave);
  }

  status() {
    const active = this.held.size, state = !this.draining ? 'serving' : active ? 'draining' : 'drained';
    return { state, active, ...this.total, limit: 0, ...this.word };
  }

  // obey carries out an order (PUT) or a release (DELETE); false says: there was a newer word.
  obey(method, { rollout, epoch, step, ceiling = null, over_ms = 0, start_ms = 0 }) {
    const last = this.word, order = method === 'PUT';
    if (epoch < last.epoch || (order && epoch === last.epoch && (!this.draining || step < last.step))) return false;
    if (order && epoch === last.epoch && step === last.step) return true; // said again
    this.word = order ? { rollout, epoch, step, ceiling } : { rollout, epoch, step: 0, ceiling: null };
    this.draining = order;
    this.funnel(order && ceiling !== null ? ceiling : Infinity, over_ms, start_ms);
    return true;
  }

  // funnel lets all above the ceiling go, one every over/n ms, at random; what ends by itself counts.
  funnel(ceiling, over, start) {
    clearTimeout(this.timer);
    const all = [...this.held], distance = over / (all.length - ceiling);
    let level = all.length, next = performance.now() + start;
    const close = () => {
      next = Math.max(next, performance.now() - 20); // no burst after a standstill
      for (; level > ceiling && next <= performance.now(); next += distance) {
        for (level--; this.held.size > level;) {
          const [leave] = all.splice(Math.floor(Math.random() * all.length), 1);
          if (this.held.delete(leave)) { this.total.evicted++; leave(); }
        }
      }
      if (level > ceiling) this.timer = setTimeout(close, next - performance.now());
    };
    if (level > ceiling) this.timer = setTimeout(close, start);
  }

  // endpoint is the server of /drain; without a token it must listen on loopback only.
  endpoint(token) {
    return createServer(async (req, res) => {
      const answer = (code, body) => res.writeHead(code, { 'Content-Type': 'application/json' }).end(JSON.stringify(body));
      if (token && req.headers.authorization !== `Bearer ${token}`) return answer(401, { error: 'the bearer token is missing or wrong' });
      if (req.method === 'GET') return answer(200, this.status());
      if (!['PUT', 'DELETE'].includes(req.method)) return answer(405, { error: 'use GET, PUT or DELETE' });
      let body = '', word = {};
      for await (const part of req) if ((body += part).length > 65536) return answer(413, { error: 'the body is too large' });
      try { word = Object(JSON.parse(body)); } catch { /* valid says no */ }
      if (!valid(req.method, word)) return answer(400, { error: 'the body is no order or release' });
      return this.obey(req.method, word) ? answer(200, this.status()) : answer(409, { error: 'there was a newer word' });
    });
  }
}

function valid(method, { rollout, epoch, step, ceiling, over_ms = 0, start_ms = 0 }) {
  const whole = (n, least, most = Number.MAX_SAFE_INTEGER) => Number.isSafeInteger(n) && n >= least && n <= most, day = 86_400_000;
  if (method === 'DELETE') return typeof rollout === 'string' && whole(epoch, 0);
  return typeof rollout === 'string' && rollout !== '' && whole(epoch, 1) && whole(step, 0) && whole(ceiling ?? 0, 0)
    && whole(over_ms, 0, day) && whole(start_ms, 0, day);
}
