// A server with Socket.IO as it is: it says who it is, and answers what it hears. It knows nothing of rollouts.
const { createServer } = require('node:http');
const { parseArgs } = require('node:util');
const { Server } = require('socket.io');

const { values: flags } = parseArgs({
  options: { name: { type: 'string' }, colour: { type: 'string' }, listen: { type: 'string' } },
});

const web = createServer();
new Server(web).on('connection', (socket) => {
  socket.emit('hello', { instance: flags.name, colour: flags.colour });
  socket.on('say', (text, answer) => answer(text));
});

const [, host, port] = /^(.*):(\d+)$/.exec(flags.listen);
web.listen(Number(port), host);
