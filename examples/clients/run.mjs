// Which client libraries come back, and how: npm start, with ENVOY and PYTHON set (make clients). It prints the table of docs/clients.md.
// A server with sluice-drain, an Envoy before it, and one client of each library; the server sees who tries when.
import { fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const lock = JSON.parse(readFileSync(here('package-lock.json'))).packages;
const python = Object.fromEntries([...readFileSync(here('requirements.txt'), 'utf8').matchAll(/^([\w-]+)==([\d.]+)/gm)].map(([, name, version]) => [name, version]));
const npm = (name) => [name, lock[`node_modules/${name}`].version];
const pip = (name) => [`${name} (Python)`, python[name]];

// Where each connects.
const libraries = new Map([
  ...['reconnecting-websocket', 'partysocket', 'websocket-ts', 'y-websocket'].map((name) => [`/${name}`, npm(name)]),
  ['/phx/websocket', npm('phoenix')], ['/cable', npm('@rails/actioncable')], ['/centrifuge', npm('centrifuge')], ['/graphql', npm('graphql-ws')],
  ['/subscriptions', npm('subscriptions-transport-ws')], ['/signalr/default', npm('@microsoft/signalr')],
  ['/signalr/reconnect', ['– withAutomaticReconnect()', lock['node_modules/@microsoft/signalr'].version]],
  ['/socket.io/', npm('socket.io-client')], ['/nats', npm('nats.ws')], ['/app/key', npm('pusher-js')], ['/stomp', npm('@stomp/stompjs')],
  ['/sse', ['EventSource (eventsource)', lock['node_modules/eventsource'].version]],
  ['/python-websockets', pip('websockets')], ['/websocket-client', pip('websocket-client')], ['/mqtt', pip('paho-mqtt')],
]);
const away = 6000, patience = 30_000;

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  await new Promise((done) => { server.close(done); });
  return port;
}

const envoy = (port, to) => JSON.stringify({
  static_resources: {
    listeners: [{
      address: { socket_address: { address: '127.0.0.1', port_value: port } },
      filter_chains: [{ filters: [{
        name: 'http',
        typed_config: {
          '@type': 'type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
          stat_prefix: 'web', upgrade_configs: [{ upgrade_type: 'websocket' }], stream_idle_timeout: '0s',
          http_filters: [{ name: 'router', typed_config: { '@type': 'type.googleapis.com/envoy.extensions.filters.http.router.v3.Router' } }],
          route_config: { virtual_hosts: [{ name: 'all', domains: ['*'], routes: [{ match: { prefix: '/' }, route: { cluster: 'server', timeout: '0s' } }] }] },
        },
      }] }],
    }],
    clusters: [{
      name: 'server',
      load_assignment: { cluster_name: 'server', endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: '127.0.0.1', port_value: to } } } }] }] },
    }],
  },
});

// world starts all of it.
async function world(refusal) {
  const [front, port, drain] = [await freePort(), await freePort(), await freePort()];
  const config = join(mkdtempSync(join(tmpdir(), 'clients-')), 'envoy.json');
  writeFileSync(config, envoy(front, port));
  const server = fork(here('server.mjs'), [port, drain, refusal], { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
  const events = [];
  createInterface({ input: server.stdout }).on('line', (line) => events.push(JSON.parse(line)));
  await once(server, 'message');
  const quiet = { stdio: process.env.VERBOSE ? 'inherit' : 'ignore' };
  const parts = [server, spawn(process.env.ENVOY, ['-c', config, '--base-id', String(1000 + (process.pid % 30_000)), '-l', 'error'], quiet)];
  for (let up = false; !up; await sleep(100)) up = await fetch(`http://127.0.0.1:${front}/`).then((res) => res.ok, () => false);
  parts.push(spawn(process.execPath, [here('clients.mjs'), `127.0.0.1:${front}`], quiet));
  parts.push(spawn(process.env.PYTHON ?? 'python3', [here('clients.py'), `127.0.0.1:${front}`], quiet));
  const order = (method, word) => fetch(`http://127.0.0.1:${drain}/drain`, { method, body: JSON.stringify({ rollout: 'clients', epoch: 1, ...word }) });
  const missing = () => [...libraries.keys()].filter((path) => !events.some((e) => e.path === path && e.accepted));
  for (let i = 0; missing().length && i < 300; i++) await sleep(100);
  if (missing().length) console.error(`these never connected: ${missing().join(', ')}`);
  await sleep(2000);
  return { server, events, order, end: () => parts.forEach((part) => part.kill('SIGKILL')) };
}

// since says of each library its tries after a moment, and when it was accepted.
function since(events, from, until = Infinity) {
  return new Map([...libraries.keys()].map((path) => {
    const mine = events.filter((e) => e.path === path && e.at >= from && e.at < until), back = mine.find((e) => e.accepted);
    return [path, { first: mine[0]?.at, refused: mine.filter((e) => !e.accepted && (!back || e.at < back.at)).length, back: back?.at }];
  }));
}

const seconds = (ms) => (Number.isFinite(ms) ? (Math.max(ms, 0) / 1000).toFixed(1) : null);

async function cut(w, how) {
  const from = Date.now();
  w.server.send(how);
  await sleep(20_000);
  return { from, seen: since(w.events, from) };
}

async function drained(w) {
  const from = Date.now();
  await w.order('PUT', { step: 1, ceiling: 0, over_ms: 0 });
  await sleep(away);
  await w.order('DELETE');
  await sleep(patience);
  return { from, seen: since(w.events, from) };
}

const first = await world(503);
const fin = await cut(first, 'FIN'), gone = await cut(first, 1001), refused = await drained(first);
first.end();
const second = await world(1013);
const closed = await drained(second);
second.end();

const after = ({ from, seen }, path) => seconds(seen.get(path).back - from) ?? 'never';
const tries = ({ from, seen }, path) => {
  const { first: begin, refused: n, back } = seen.get(path);
  return begin === undefined ? 'no try, never' : `first try after ${seconds(begin - from)}, ${n} refused, ${back ? `back after ${seconds(back - from)}` : '**never back**'}`;
};
console.log(`| library | FIN: back after | 1001: back after | 1012, then 503 for ${away / 1000} s | 1012, then 1013 for ${away / 1000} s |\n|---|---|---|---|---|`);
for (const [path, [name, version]] of libraries) {
  console.log(`| ${name} ${version} | ${after(fin, path)} | ${after(gone, path)} | ${tries(refused, path)} | ${tries(closed, path)} |`);
}
process.exit();
