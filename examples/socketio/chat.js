// A chat server with Socket.IO that takes part in rollouts.
const { createServer } = require('node:http');
const { parseArgs } = require('node:util');
const { Gate } = require('sluice-drain');
const { Server } = require('socket.io');

const text = { type: 'string', default: '' };
const { values: flags } = parseArgs({ options: { name: text, colour: text, version: text, listen: text, drain: text, token: text } });

const gate = new Gate({ token: flags.token, pass: (req) => req.url === '/healthz' });
const web = createServer((req, res) => res.end(`${flags.name}\n`));
const io = gate.socketio(new Server(gate.http(web)));

io.on('connection', (socket) => {
  socket.emit('hello', { instance: flags.name, colour: flags.colour });
  socket.on('say', (said, answer) => answer(said));
});

const [, host, port] = /^(.*):(\d+)$/.exec(flags.listen);
web.listen(Number(port), host);
gate.listen(flags.drain);
process.once('SIGTERM', async () => process.exit(await gate.shutdown({ grace: 60_000 }) ? 0 : 1));
