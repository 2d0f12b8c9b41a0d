// Clients with Socket.IO's own library, which reconnects by itself: node clients.js URL COUNT
// Each line that is printed is what one of them went through. Each line that is read they all say, and print when they
// are answered. It ends with its input.
const { createInterface } = require('node:readline');
const { io } = require('socket.io-client');

const [url, count] = process.argv.slice(2);
const tell = (what) => process.stdout.write(`${JSON.stringify(what)}\n`);

const all = Array.from({ length: Number(count) }, (_, client) => {
  const socket = io(url, { transports: ['websocket'], forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500 });
  socket.on('hello', (hello) => tell({ client, hello }));
  socket.on('disconnect', (reason, details) => tell({ client, left: reason, code: details?.context?.code }));
  socket.on('connect_error', (err) => tell({ client, refused: err.message }));
  return socket;
});

createInterface({ input: process.stdin })
  .on('line', (text) => all.forEach((socket, client) => socket.emit('say', text, (heard) => tell({ client, heard }))))
  .on('close', () => process.exit());
