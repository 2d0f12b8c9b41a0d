// Stub servers of many protocols on one port, by path, with sluice-drain before them: what a client library needs to think that it
// is connected, and no more. Each attempt to connect is printed: {"at":ms,"path":"/…","accepted":true}.
// node server.mjs PORT DRAIN_PORT REFUSAL
import { createServer } from 'node:http';
import { Server as SocketIO } from 'socket.io';
import { useServer } from 'graphql-ws/use/ws';
import { buildSchema } from 'graphql';
import { Gate } from 'sluice-drain';
import { WebSocketServer } from 'ws';

const [port, drainPort, refusal] = process.argv.slice(2).map(Number);
const tell = (path, accepted) => console.log(JSON.stringify({ at: Date.now(), path, accepted }));
const pathOf = (req) => req.url.split('?')[0];
const gate = new Gate({ refusal, closeWait: 1000, pass: (req) => !pathOf(req).startsWith('/sse') });
const web = createServer();
const open = new Set();

// What is cut is cut without a goodbye: FIN, or 1001.
process.on('message', (how) => {
  for (const { ws, socket } of open) {
    if (how === 1001 && ws) ws.close(1001, 'going away');
    else socket.end();
  }
});

web.on('request', (req, res) => {
  const path = pathOf(req);
  if (path.startsWith('/socket.io')) return;
  if (path === '/signalr/negotiate') {
    const id = `c${Math.random()}`;
    res.setHeader('content-type', 'application/json');
    res.end(JSON.stringify({ connectionId: id, connectionToken: id, negotiateVersion: 1, availableTransports: [{ transport: 'WebSockets', transferFormats: ['Text'] }] }));
  } else if (path.startsWith('/sse')) {
    res.writeHead(200, { 'content-type': 'text/event-stream' }).write('data: hello\n\n');
    const one = { socket: req.socket };
    open.add(one);
    res.once('close', () => open.delete(one));
  } else {
    res.end('a server of many protocols\n');
  }
});

const protocols = {
  '/phx/websocket': (ws) => ws.on('message', (m) => {
    const [join, ref, topic] = JSON.parse(m);
    ws.send(JSON.stringify([join, ref, topic, 'phx_reply', { status: 'ok', response: {} }]));
  }),
  '/cable': (ws) => {
    ws.send(JSON.stringify({ type: 'welcome' }));
    const ping = setInterval(() => ws.send(JSON.stringify({ type: 'ping', message: Date.now() })), 3000);
    ws.once('close', () => clearInterval(ping));
  },
  '/centrifuge': (ws) => ws.on('message', (m) => {
    for (const line of String(m).split('\n').filter((l) => l.trim())) {
      const c = JSON.parse(line);
      if (c.connect) ws.send(JSON.stringify({ id: c.id, connect: { client: 'x', version: '0', ping: 25, pong: true } }));
    }
  }),
  '/mqtt': (ws) => ws.on('message', (m) => {
    if (m[0] >> 4 === 1) ws.send(Buffer.from([0x20, 2, 0, 0]));
    if (m[0] >> 4 === 12) ws.send(Buffer.from([0xd0, 0]));
  }),
  '/nats': (ws) => {
    ws.send(Buffer.from('INFO {"server_id":"x","version":"2.10.0","proto":1,"headers":true,"max_payload":1048576,"client_id":1}\r\n'));
    ws.on('message', (m) => { if (String(m).includes('PING')) ws.send(Buffer.from('PONG\r\n')); });
  },
  '/app/key': (ws) => ws.send(JSON.stringify({ event: 'pusher:connection_established', data: JSON.stringify({ socket_id: '1.1', activity_timeout: 120 }) })),
  '/stomp': (ws) => ws.on('message', (m) => {
    if (/^(CONNECT|STOMP)/.test(String(m))) ws.send('CONNECTED\nversion:1.2\nheart-beat:0,0\n\n\0');
  }),
  '/subscriptions': (ws) => ws.on('message', (m) => {
    if (JSON.parse(m).type === 'connection_init') ws.send('{"type":"connection_ack"}');
  }),
};
const signalr = (ws) => ws.on('message', (m) => { if (String(m).includes('"protocol"')) ws.send('{}\u001e'); });

const schema = buildSchema('type Query { a: Int } type Subscription { tick: Int }');
async function* tick() {
  for (let i = 0; ; i++) {
    yield { tick: i };
    await new Promise((next) => { setTimeout(next, 500); });
  }
}
const graphql = gate.ws(new WebSocketServer({ noServer: true, handleProtocols: () => 'graphql-transport-ws' }));
useServer({ schema, roots: { subscription: { tick } } }, graphql);
const plain = gate.ws(new WebSocketServer({ noServer: true, handleProtocols: ([first]) => first ?? false }));
const io = gate.socketio(new SocketIO(web));
io.engine.on('connection', (session) => {
  const one = { ws: session.transport.socket, socket: session.request.socket };
  open.add(one);
  session.once('close', () => open.delete(one));
});

web.on('upgrade', (req, socket, head) => {
  const path = pathOf(req);
  if (path.startsWith('/socket.io')) return;
  const server = path === '/graphql' ? graphql : plain;
  server.handleUpgrade(req, socket, head, (ws) => {
    const one = { ws, socket };
    open.add(one);
    ws.once('close', () => open.delete(one));
    if (path.startsWith('/signalr')) signalr(ws);
    else if (protocols[path]) protocols[path](ws);
    else if (server === plain) ws.on('message', (m, binary) => ws.send(m, { binary }));
    if (server === graphql) server.emit('connection', ws, req);
  });
});

// Seen before the gate: each attempt.
const emit = web.emit;
web.emit = function seen(event, req, ...rest) {
  const path = event === 'upgrade' || (event === 'request' && /^\/(sse|socket\.io)/.test(req.url)) ? pathOf(req) : '';
  if (path) tell(path, !gate.draining);
  return emit.call(this, event, req, ...rest);
};
gate.http(web);

web.listen(port, '127.0.0.1');
await gate.listen(`127.0.0.1:${drainPort}`);
process.send?.('ready');
