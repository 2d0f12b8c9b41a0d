// Several processes behind one port: chat.js with its flags, three times. They share one drain endpoint.
import cluster from 'node:cluster';
import { fileURLToPath } from 'node:url';

cluster.setupPrimary({ exec: fileURLToPath(new URL('chat.js', import.meta.url)), args: process.argv.slice(2) });
for (let i = 0; i < 3; i++) cluster.fork();

let worst = 0;
cluster.on('exit', (worker, code) => {
  worst = Math.max(worst, code ?? 1);
  if (!Object.keys(cluster.workers).length) process.exit(worst);
});
process.once('SIGTERM', () => Object.values(cluster.workers).forEach((worker) => worker.process.kill('SIGTERM')));
