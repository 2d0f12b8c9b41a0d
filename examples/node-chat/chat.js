// A chat server in Node that takes part in rollouts: examples/chat once more, with the same flags.
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { Gate, returned } from 'sluice-drain';
import { WebSocketServer } from 'ws';

const text = (value) => ({ type: 'string', default: value });
const { values: flags } = parseArgs({
  options: {
    name: text('chat-b1'), colour: text('blue'), version: text('v1'), listen: text('127.0.0.1:9001'),
    drain: text(''), // address of the drain endpoint; empty: drop the connections on SIGTERM
    token: text(''), // what it demands; empty: keep it on loopback
    refusal: text('503'), // how WebSockets are refused: 503, or 1013
    close: text('100'), every: text('1s'), grace: text('1m'), // on SIGTERM without orders: the pace, and the longest to wait
  },
});

const gate = new Gate({
  token: flags.token, refusal: Number(flags.refusal), close: Number(flags.close), every: ms(flags.every),
  pass: (req) => req.url === '/healthz',
});
const web = gate.http(createServer((req, res) => res.writeHead(200, { 'X-Colour': flags.colour }).end(`${flags.name}\n`)));
const room = gate.ws(new WebSocketServer({ server: web }));

room.on('connection', (ws, req) => {
  if (new URLSearchParams(req.url.split('?')[1]).get('returning') === '1') returned(ws);
  ws.on('message', (data) => {
    const said = data.toString(), all = said.startsWith('/all ');
    for (const to of all ? room.clients : [ws]) to.send(all ? said.slice('/all '.length) : said);
  });
  ws.send(JSON.stringify({ instance: flags.name, colour: flags.colour, version: flags.version }));
});

const [, host, port] = /^(.*):(\d+)$/.exec(flags.listen);
web.listen(Number(port), host);
if (flags.drain) await gate.listen(flags.drain);

process.once('SIGTERM', async () => {
  const empty = !flags.drain || await gate.shutdown({ grace: ms(flags.grace) });
  process.exit(empty ? 0 : 1);
});

// ms reads 500ms, 3s or 1m.
function ms(duration) {
  const [, n, unit] = /^([\d.]+)(ms|s|m|h)$/.exec(duration);
  return n * { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[unit];
}
