'use strict';

const goodbye = [1012, 'service restart'], later = [1013, 'try again later'];

// word is why: a proxy may send what was refused to another instance.
const word = (gate) => (gate.draining ? 'draining' : 'full');

// no answers a request that is refused: 503, and an EventSource, which a 503 ends for good, 200 with the time to wait.
function no(gate, req, res) {
  const seconds = gate.options.retryAfter, headers = { 'Retry-After': seconds, Connection: 'close', 'x-sluice-refused': word(gate) };
  if (!/\btext\/event-stream\b/.test(req.headers.accept ?? '')) return res.writeHead(503, headers).end();
  const { origin } = req.headers;
  if (origin) Object.assign(headers, { 'Access-Control-Allow-Origin': origin, 'Access-Control-Allow-Credentials': 'true' });
  return res.writeHead(200, { ...headers, 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' }).end(`retry: ${seconds * 1000}\n\n`);
}

function noUpgrade(gate, socket) {
  socket.on('error', () => {}); // 'close' follows
  socket.end(`HTTP/1.1 503 Service Unavailable\r\nRetry-After: ${gate.options.retryAfter}\r\nx-sluice-refused: ${word(gate)}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
}

const address = (req) => req.socket.remoteAddress;

// before has a function called in place of a method, with the method itself as the first argument.
function before(object, method, call) {
  const own = object[method];
  object[method] = function replaced(...args) { return call(own.bind(this), ...args); };
}

// http refuses the requests and upgrades of a server while draining. A response that lasts can be let go.
function http(gate, server) {
  before(server, 'emit', (emit, event, req, second, ...rest) => {
    const go = () => emit(event, req, second, ...rest);
    if (!['request', 'checkContinue', 'checkExpectation', 'upgrade'].includes(event) || gate.options.pass(req)) return go();
    if (adaptersOf(gate).some((mine) => mine(event, req))) return go();
    if (gate.refuses(address(req))) {
      if (event === 'upgrade') noUpgrade(gate, second);
      else no(gate, req, second);
      return true;
    }
    if (event === 'upgrade') {
      const seat = gate.seat(address(req), { leave: () => second.end(), force: () => second.destroy() });
      second.once('close', () => seat.done());
      seat.hold();
    } else {
      response(gate, req, second);
    }
    return go();
  });
  return server;
}

// response counts one as a request, and as held once it lasts.
function response(gate, req, res) {
  const force = () => res.destroy();
  const leave = () => { // what the author's code says afterwards goes nowhere
    if (!res.headersSent) res.writeHead(503, { 'Retry-After': gate.options.retryAfter });
    res.end();
    for (const method of ['writeHead', 'setHeader', 'appendHeader', 'removeHeader', 'flushHeaders', 'end']) res[method] = () => res;
    res.write = () => true;
  };
  const seat = gate.seat(address(req), { leave, force });
  const timer = setTimeout(() => seat.hold(), gate.options.long);
  seat.request();
  before(res, 'writeHead', (writeHead, ...args) => {
    const out = writeHead(...args);
    const kinds = [res.getHeader('content-type'), ...args.map((one) => one?.['Content-Type'] ?? one?.['content-type'])];
    if (kinds.some((kind) => /^text\/event-stream\b/i.test(kind))) seat.hold();
    return out;
  });
  res.once('close', () => {
    clearTimeout(timer);
    seat.done();
  });
}

// ws refuses the handshakes of a WebSocketServer while draining, and lets its WebSockets go with 1012.
function ws(gate, server) {
  claim(gate, (event) => event === 'upgrade');
  before(server, 'handleUpgrade', (handleUpgrade, req, socket, head, done) => {
    const refused = !gate.options.pass(req) && gate.refuses(address(req));
    if (refused && gate.options.refusal === 503) return noUpgrade(gate, socket);
    return handleUpgrade(req, socket, head, (client, request) => {
      client.on('error', () => {}); // 'close' follows
      const bye = () => setTimeout(() => client.terminate(), gate.options.closeWait).unref();
      if (refused) {
        client.close(...later);
        bye();
        return;
      }
      const seat = gate.admit({ remote: address(req), leave: () => client.close(...goodbye), force: () => client.terminate() });
      if (!seat) { // an order came while hands were shaken
        client.close(...goodbye);
        bye();
        return;
      }
      seats.set(client, seat);
      client.once('close', () => seat.done());
      done(client, request);
    });
  });
  return server;
}

// socketio counts sessions, over whichever transport, and lets them go by closing it: their clients connect again, which after
// disconnect(true) they never would. Requests of a session that is there are served.
function socketio(gate, io) {
  const { engine } = io;
  if (!engine) throw new Error('sluice-drain: attach Socket.IO to its server first, by new Server(httpServer) or io.listen()');
  const path = io.path();
  const mine = (url) => url.startsWith(`${path}/`) || url.startsWith(`${path}?`) || url === path;
  const known = (req) => engine.clients[new URLSearchParams(req.url.split('?')[1]).get('sid')] !== undefined;
  claim(gate, (event, req) => event === 'upgrade' || mine(req.url));
  before(engine, 'handleRequest', (handleRequest, req, res) => {
    if (!known(req) && req.method !== 'OPTIONS' && gate.refuses(address(req))) no(gate, req, res);
    else handleRequest(req, res);
  });
  before(engine, 'handleUpgrade', (handleUpgrade, req, socket, head) => {
    if (!known(req) && gate.refuses(address(req))) noUpgrade(gate, socket);
    else handleUpgrade(req, socket, head);
  });
  engine.on('connection', (session) => {
    const leave = () => {
      const { name, socket } = session.transport;
      if (name === 'websocket' && socket) socket.close(...goodbye);
      else session.close();
    };
    const seat = gate.admit({ remote: address(session.request), leave, force: () => session.close(true) });
    if (!seat) {
      leave();
      return;
    }
    seats.set(session, seat);
    session.once('close', () => seat.done());
  });
  return io;
}

const claims = new WeakMap(), seats = new WeakMap();
const adaptersOf = (gate) => claims.get(gate) ?? [];
const claim = (gate, mine) => claims.set(gate, [...adaptersOf(gate), mine]);

// returned says of a WebSocket, or of a Socket.IO socket, that its client was connected to this service before.
const returned = (client) => seats.get(client.conn ?? client)?.returned();

module.exports = { http, ws, socketio, returned };
