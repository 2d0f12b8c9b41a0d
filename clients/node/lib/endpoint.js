'use strict';
const { timingSafeEqual, createHash } = require('node:crypto');
const { createServer, request } = require('node:http');
const { Workers } = require('./workers.js');

const why = {
  400: 'this is no order or release', 401: 'the bearer token is missing or wrong', 404: 'the drain endpoint is /drain',
  403: 'without a token the drain endpoint answers direct requests from this machine only', 405: 'use GET, PUT or DELETE',
  409: 'there was a newer word', 413: 'the body is too large', 503: 'a worker of this port does not answer',
};
// Who begins to serve the endpoint answers so much later, in ms: other workers may still run, and tell it first what they hold
// and which word stands. Until then it would call a full port empty.
const gathering = 500;
const hash = (text) => createHash('sha256').update(text).digest();
const local = (address = '') => /^(::ffff:)?127\.|^::1$/.test(address);

// allowed is 0, or the status that says why not.
function allowed({ token }, req) {
  if (token) return timingSafeEqual(hash(req.headers.authorization ?? ''), hash(`Bearer ${token}`)) ? 0 : 401;
  const forwarded = ['x-forwarded-for', 'x-forwarded-proto', 'forwarded'].some((name) => req.headers[name]);
  return local(req.socket.remoteAddress) && !forwarded ? 0 : 403;
}

async function answer(gate, req) {
  const no = allowed(gate.options, req);
  if (no) return no;
  if (new URL(req.url, 'http://drain').pathname !== '/drain') return 404;
  if (req.method !== 'GET') {
    if (!['PUT', 'DELETE'].includes(req.method)) return 405;
    let body = '', said;
    for await (const part of req) if ((body += part).length > 65_536) return 413;
    try { said = JSON.parse(body); } catch { return 400; }
    if (typeof said !== 'object' || said === null || Array.isArray(said)) return 400;
    const code = gate.obey(req.method === 'PUT', said);
    if (code !== 200) return code;
  }
  return (await gate.spread()) ? 200 : 503;
}

function reply(gate, res, code) {
  const headers = { 'Content-Type': 'application/json', 'Cache-Control': 'no-store', Connection: 'close' };
  if (code === 401) headers['WWW-Authenticate'] = 'Bearer';
  if (code === 405) headers.Allow = 'GET, PUT, DELETE';
  res.writeHead(code, headers).end(JSON.stringify(code === 200 ? gate.status() : { error: why[code] }));
}

// serve serves /drain at host:port. Where another worker of this machine does already, it works for that one, and takes its
// place when it is gone.
async function serve(gate, address) {
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(address) ?? [];
  if (!port) throw new TypeError(`sluice-drain: ${address} is no address; write it like 127.0.0.1:9101`);
  const workers = new Workers(gate);
  let gathered = Promise.resolve();
  const server = createServer(async (req, res) => {
    await gathered;
    reply(gate, res, await answer(gate, req).catch(() => 400));
  });
  server.on('listening', () => { gathered = new Promise((go) => { setTimeout(go, gathering).unref(); }); });
  server.on('upgrade', (req, socket) => {
    const code = allowed(gate.options, req), mine = req.socket.remoteAddress === req.socket.localAddress;
    if (code || !mine || req.headers.upgrade !== 'sluice-worker') return socket.destroy();
    return workers.join(socket);
  });
  const bind = () => new Promise((resolve, reject) => {
    server.once('error', reject).listen({ host, port: Number(port), exclusive: true }, () => resolve(server.off('error', reject)));
  });
  const joining = () => new Promise((resolve, reject) => {
    const headers = { Connection: 'Upgrade', Upgrade: 'sluice-worker', ...(gate.options.token && { Authorization: `Bearer ${gate.options.token}` }) };
    const near = { '0.0.0.0': '127.0.0.1', '': '127.0.0.1', '::': '::1' }[host] ?? host;
    request({ host: near, port, path: '/drain', headers, timeout: 1000 })
      .on('upgrade', (res, socket, head) => {
        socket.unshift(head);
        resolve(workers.follow(socket));
      })
      .on('timeout', function late() { this.destroy(new Error('no answer')); })
      .on('response', (res) => reject(new Error(`it answers ${res.statusCode}`)))
      .on('error', reject).end();
  });
  let closed = false;
  async function take() {
    try { return await bind(); } catch (err) { if (err.code !== 'EADDRINUSE') throw err; }
    const head = await joining();
    if (closed) head.destroy();
    head.once('close', () => retake());
    return head;
  }
  const retake = () => { if (!closed) setTimeout(() => take().catch(retake), 50 + Math.random() * 50).unref(); };
  for (let tries = 0; ; tries++) {
    try {
      await take();
      break;
    } catch (err) {
      if (tries >= 20 || !['EADDRINUSE', 'ECONNREFUSED', 'ECONNRESET'].includes(err.code)) {
        throw new Error(`sluice-drain: the drain endpoint ${address} is taken by another program: ${err.message}`, { cause: err });
      }
      await new Promise((go) => { setTimeout(go, 100); });
    }
  }
  return {
    close() {
      closed = true;
      workers.close();
      return new Promise((done) => { server.close(() => done()); server.closeAllConnections?.(); });
    },
  };
}

module.exports = { serve };
