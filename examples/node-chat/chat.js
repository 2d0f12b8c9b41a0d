// A chat server in Node that takes part in rollouts: examples/chat once more, with the same flags.
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { WebSocketServer } from 'ws';
import { Gate } from './drain.js';

const text = (value) => ({ type: 'string', default: value });
const { values: flags } = parseArgs({
  options: {
    name: text('chat-b1'), colour: text('blue'), version: text('v1'), listen: text('127.0.0.1:9001'),
    drain: text(''), // address of the drain endpoint; empty: drop the connections on SIGTERM
    token: text(''), // what it demands; empty: keep it on loopback
    close: text('100'), every: text('1s'), grace: text('1m'), // on SIGTERM without orders: the pace, and the longest to wait
  },
});

const hello = JSON.stringify({ instance: flags.name, colour: flags.colour, version: flags.version });
const refusal = ['HTTP/1.1 503 Service Unavailable', 'Retry-After: 1', 'Connection: close', 'Content-Length: 0', '', ''].join('\r\n');
const gate = new Gate(), room = new WebSocketServer({ noServer: true });

const web = createServer((req, res) => {
  if (gate.draining) return res.writeHead(503, { 'Retry-After': 1, Connection: 'close' }).end();
  return res.writeHead(200, { 'X-Colour': flags.colour }).end(`${flags.name}\n`);
});

web.on('upgrade', (req, socket, head) => {
  let ws;
  const leave = () => {
    ws?.close(1012, 'service restart');
    setTimeout(() => socket.destroy(), 1000); // a peer that says no goodbye is not waited for
  };
  socket.on('error', () => {}); // 'close' follows
  if (!gate.admit(leave, new URL(req.url, 'http://chat').searchParams.get('returning') === '1', socket.remoteAddress)) return socket.end(refusal);
  socket.on('close', () => gate.held.delete(leave));
  return room.handleUpgrade(req, socket, head, (accepted) => { ws = accepted; talk(ws); });
});

function talk(ws) {
  ws.on('error', () => {});
  ws.on('message', (data) => {
    const said = data.toString(), all = said.startsWith('/all ');
    for (const to of all ? room.clients : [ws]) to.send(all ? said.slice('/all '.length) : said);
  });
  ws.send(hello);
}

function listen(server, address) {
  const [, host, port] = /^(.*):(\d+)$/.exec(address);
  server.listen(Number(port), host);
}

listen(web, flags.listen);
if (flags.drain) listen(gate.endpoint(flags.token), flags.drain);

process.once('SIGTERM', () => {
  if (!flags.drain) process.exit();
  const held = gate.held.size;
  if (!gate.draining) gate.funnel(0, (held / Number(flags.close)) * ms(flags.every), 0); // unless orders came
  gate.draining = true;
  const grace = performance.now() + ms(flags.grace);
  setInterval(() => {
    if (!room.clients.size) process.exit();
    if (performance.now() > grace) process.exit(1);
  }, 20);
});

// ms reads 500ms, 3s or 1m.
function ms(duration) {
  const [, n, unit] = /^([\d.]+)(ms|s|m|h)$/.exec(duration);
  return n * { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[unit];
}
