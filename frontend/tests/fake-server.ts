/** A fake server for tests. It replaces `WebSocket`, and its latency follows vitest's fake timers. */

import { vi } from "vitest";

const LATENCY = 10;

export class FakeServer {
  /** What the server does with a handshake. */
  handshakes: "accept" | "refuse" | "ignore" = "accept";
  /** The server refuses a handshake while this many sockets are open. */
  maxSockets = Number.POSITIVE_INFINITY;
  /** Whether frames get through, in both directions. */
  isReachable = true;
  /** Whether the server answers messages and keep-alives. */
  answers = true;
  latency = LATENCY;
  readonly sockets: FakeWebSocket[] = [];
  /** Every text that a client has sent, except keep-alives. */
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

  get openSockets(): FakeWebSocket[] {
    return this.sockets.filter((socket) => socket.readyState === 1);
  }

  get last(): FakeWebSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  countKeepAlives(): number {
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
    const handshake = server.openSockets.length < server.maxSockets ? server.handshakes : "refuse";
    server.sockets.push(this);
    this.runLater(() => {
      if (handshake === "accept" && this.server.isReachable && this.readyState === 0) {
        this.readyState = 1;
        this.onopen?.();
      }
      if (handshake === "refuse" && this.server.isReachable) this.drop(1006);
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
      this.runLater(() => this.deliver(JSON.stringify(isKeepAlive ? { keepalive: true } : { message: text })));
    }
  }

  /** Deliver a frame from the server. */
  deliver(text: string): void {
    if (this.readyState === 1 && this.server.isReachable) this.onmessage?.({ data: text });
  }

  /** End the socket, as the client sees it. */
  drop(code: number, reason = ""): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  close(code?: number): void {
    if (this.readyState >= 2) return;
    this.readyState = 2;
    if (this.server.isReachable) this.runLater(() => this.drop(code ?? 1005));
  }

  private runLater(action: () => void): void {
    setTimeout(action, this.server.latency);
  }
}

/** Return a token that is valid from `now`. It has no real signature, because the page does not verify it. */
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
