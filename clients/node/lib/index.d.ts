import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

export interface Options {
  /** Most connections that one process holds; above it new ones are refused. 0, the default, is no limit. */
  limit?: number;
  /** The bearer token of the drain endpoint. Without one it answers direct requests from this machine only. */
  token?: string;
  /** Milliseconds that a connection which was told to go has for its own goodbye. Default 1000. */
  closeWait?: number;
  /** Whole seconds that who is refused is told to wait. Default 1. */
  retryAfter?: number;
  /** How a WebSocket is refused: by HTTP 503, the default, or accepted and closed with 1013. Counted as refused either way. */
  refusal?: 503 | 1013;
  /** On shutdown without orders: connections to close per `every` milliseconds. Default 100 per 1000. */
  close?: number;
  every?: number;
  /** A response that runs for longer, in milliseconds, counts as a connection and can be let go. Default 10000. */
  long?: number;
  /** Which requests are served whatever is ordered, such as health checks. Default: none. */
  pass?: (req: IncomingMessage) => boolean;
}

export interface Peer { held: number; accepted: number; refused: number }

export interface Status {
  state: 'serving' | 'draining' | 'drained';
  boot: string;
  active: number;
  requests: number;
  lingering: number;
  accepted: number;
  evicted: number;
  refused: number;
  returned: number | null;
  limit: number;
  ceiling: number | null;
  rollout: string;
  epoch: number;
  step: number;
  peers: Record<string, Peer>;
}

/** One connection that was admitted. */
export interface Seat {
  /** Its client was connected to this service before. */
  returned(): void;
  /** It has ended, whoever ended it. */
  done(): void;
}

export interface Admission {
  /** The remote address of the TCP connection. */
  remote?: string;
  /** Says goodbye; called once. */
  leave: () => void;
  /** Ends what is still there closeWait later. */
  force?: () => void;
}

/** What serves /drain. */
export interface Endpoint { close(): Promise<void> }

interface HttpServer { on(event: 'upgrade', listener: (...args: any[]) => void): unknown; listen(...args: any[]): unknown }
interface WebSocketServer { handleUpgrade(req: IncomingMessage, socket: Duplex, head: any, done: (client: any, req: any) => void): void }
interface SocketIOServer { readonly engine: any; path(): any }

/**
 * Gate holds the connections of a server and lets them go at the pace that is ordered. Workers behind one port have one drain
 * endpoint, which says the sum of them.
 */
export class Gate {
  constructor(options?: Options);
  /** Refuses requests and upgrades with 503 while draining; a response that lasts can be let go. Returns the server. */
  http<T extends HttpServer>(server: T): T;
  /** Refuses handshakes while draining; lets WebSockets go with a close frame 1012. Returns the server. */
  ws<T extends WebSocketServer>(server: T): T;
  /** Refuses new sessions while draining; lets sessions go so that their clients connect again. Returns the server. */
  socketio<T extends SocketIOServer>(io: T): T;
  /** Counts a connection in that your server owns; null says: refuse it. */
  admit(connection: Admission): Seat | null;
  /** Serves /drain at host:port, or works for the worker that does. */
  listen(address: string): Promise<Endpoint>;
  status(): Status;
  /** New connections are refused: by order, or because of shutdown. */
  readonly draining: boolean;
  /** What is held and lasts. */
  readonly active: number;
  /** Lets all go, as ordered or at its own pace; says whether none is left after the grace period in milliseconds. */
  shutdown(options?: { grace?: number }): Promise<boolean>;
}

/** Says of a WebSocket of `ws`, or a socket of Socket.IO, that its client was connected to this service before. */
export function returned(client: object): void;
