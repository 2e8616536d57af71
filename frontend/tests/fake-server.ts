/** A network with one server on it, for tests: takes the place of `WebSocket`, and runs by the fake clock. */

import { vi } from "vitest";

const LATENCY = 10;

export class FakeServer {
  /** What a new socket meets: it opens, is refused, or gets no answer at all. */
  admits: "all" | "nobody" | "silence" = "all";
  /** Most sockets at a time; the next one is refused. */
  cap = Number.POSITIVE_INFINITY;
  /** Whether frames get through, in both directions. */
  isReachable = true;
  answers = true;
  latency = LATENCY;
  readonly sockets: FakeWebSocket[] = [];
  /** Every text that a client has sent, keep-alives left out. */
  readonly texts: string[] = [];

  install(): void {
    const server = this;
    vi.stubGlobal(
      "WebSocket",
      class extends FakeWebSocket {
        constructor(url: string, protocols?: string[]) {
          super(server, url, protocols);
        }
      },
    );
  }

  get open(): FakeWebSocket[] {
    return this.sockets.filter((socket) => socket.readyState === 1);
  }

  get last(): FakeWebSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  keepAlives(): number {
    return this.sockets.reduce((sum, socket) => sum + socket.keepAlives, 0);
  }
}

export class FakeWebSocket {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  readyState = 0;
  keepAlives = 0;
  readonly received: string[] = [];

  constructor(
    private readonly server: FakeServer,
    readonly url: string,
    readonly protocols: string[] | undefined,
  ) {
    const admits = server.open.length < server.cap ? server.admits : "nobody";
    server.sockets.push(this);
    this.later(() => {
      if (admits === "all" && this.server.isReachable && this.readyState === 0) {
        this.readyState = 1;
        this.onopen?.();
      }
      if (admits === "nobody" && this.server.isReachable) this.drop(1006);
    });
  }

  send(text: string): void {
    if (this.readyState === 0) throw new Error("InvalidStateError: still connecting");
    if (this.readyState !== 1) return;
    const isKeepAlive = text === '{"action":"keepalive"}';
    if (isKeepAlive) {
      this.keepAlives += 1;
    } else {
      this.server.texts.push(text);
      this.received.push(text);
    }
    if (this.server.answers && this.server.isReachable) {
      this.later(() => this.deliver(JSON.stringify(isKeepAlive ? { keepalive: true } : { message: text })));
    }
  }

  /** A frame from the server. */
  deliver(text: string): void {
    if (this.readyState === 1 && this.server.isReachable) this.onmessage?.({ data: text });
  }

  /** The end, as seen by the client. */
  drop(code: number, reason = ""): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  close(code?: number): void {
    if (this.readyState >= 2) return;
    this.readyState = 2;
    if (this.server.isReachable) this.later(() => this.drop(code ?? 1005));
  }

  private later(action: () => void): void {
    setTimeout(action, this.server.latency);
  }
}

/** A token that lives from now, by this clock. Signatures are the server's business. */
export function makeToken(lifeSeconds: number, now: number = Date.now()): string {
  const iat = Math.floor(now / 1000);
  const payload = btoa(JSON.stringify({ iat, exp: iat + lifeSeconds }))
    .replace(/\+/g, "-")
    .replace(/\//g, "_")
    .replace(/=+$/, "");
  makeToken.count += 1;
  return `header.${payload}.${makeToken.count}`;
}
makeToken.count = 0;
