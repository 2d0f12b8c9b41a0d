// One client of each library, as its documentation begins: node clients.mjs HOST:PORT
import ActionCable from '@rails/actioncable';
import * as signalR from '@microsoft/signalr';
import { Client as Stomp } from '@stomp/stompjs';
import { Centrifuge } from 'centrifuge';
import { EventSource } from 'eventsource';
import { createClient } from 'graphql-ws';
import { connect as nats } from 'nats.ws';
import { WebSocket as PartySocket } from 'partysocket';
import { Socket as Phoenix } from 'phoenix';
import Pusher from 'pusher-js';
import ReconnectingWebSocket from 'reconnecting-websocket';
import { io } from 'socket.io-client';
import { SubscriptionClient } from 'subscriptions-transport-ws';
import { ExponentialBackoff, WebsocketBuilder } from 'websocket-ts';
import WebSocket from 'ws';
import { WebsocketProvider } from 'y-websocket';
import * as Y from 'yjs';

const at = process.argv[2], ws = `ws://${at}`, http = `http://${at}`;
process.on('uncaughtException', (err) => console.error(String(err)));
process.on('unhandledRejection', (err) => console.error(String(err)));

// They were written for browsers.
Object.assign(globalThis, { WebSocket, self: globalThis });
globalThis.window ??= Object.assign(globalThis, { addEventListener() {}, removeEventListener() {} });
globalThis.document ??= { addEventListener() {}, removeEventListener() {}, visibilityState: 'visible', hidden: false };

const all = {
  'reconnecting-websocket': () => new ReconnectingWebSocket(`${ws}/reconnecting-websocket`, [], { WebSocket }),
  partysocket: () => new PartySocket(`${ws}/partysocket`, [], { WebSocket }),
  'websocket-ts': () => new WebsocketBuilder(`${ws}/websocket-ts`).withBackoff(new ExponentialBackoff(100, 7)).build(),
  'y-websocket': () => new WebsocketProvider(ws, 'y-websocket', new Y.Doc(), { WebSocketPolyfill: WebSocket, disableBc: true }),
  phoenix: () => new Phoenix(`${ws}/phx`, { transport: WebSocket }).connect(),
  '@rails/actioncable': () => {
    ActionCable.adapters.WebSocket = WebSocket;
    ActionCable.createConsumer(`${ws}/cable`).connect();
  },
  centrifuge: () => new Centrifuge(`${ws}/centrifuge`, { websocket: WebSocket }).connect(),
  'graphql-ws': () => createClient({ url: `${ws}/graphql`, webSocketImpl: WebSocket })
    .subscribe({ query: 'subscription { tick }' }, { next() {}, error(err) { console.error('graphql-ws', String(err)); }, complete() {} }),
  'subscriptions-transport-ws': () => new SubscriptionClient(`${ws}/subscriptions`, { reconnect: true }, WebSocket),
  signalr: () => new signalR.HubConnectionBuilder().withUrl(`${http}/signalr/default`, { skipNegotiation: true, transport: 1 })
    .configureLogging(signalR.LogLevel.None).build().start(),
  'signalr-reconnect': () => new signalR.HubConnectionBuilder().withUrl(`${http}/signalr/reconnect`, { skipNegotiation: true, transport: 1 })
    .withAutomaticReconnect().configureLogging(signalR.LogLevel.None).build().start(),
  'socket.io-client': () => io(http, { transports: ['websocket'] }),
  'nats.ws': () => nats({ servers: `${ws}/nats` }),
  'pusher-js': () => new Pusher('key', { wsHost: at.split(':')[0], wsPort: Number(at.split(':')[1]), forceTLS: false, enabledTransports: ['ws'], cluster: '' }),
  stompjs: () => new Stomp({ brokerURL: `${ws}/stomp`, webSocketFactory: () => new WebSocket(`${ws}/stomp`) }).activate(),
  EventSource: () => new EventSource(`${http}/sse`),
};

for (const [name, start] of Object.entries(all)) {
  try {
    await start()?.catch?.((err) => console.error(name, String(err)));
  } catch (err) {
    console.error(name, String(err));
  }
}
