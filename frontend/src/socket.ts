/** One WebSocket of a Connection, with the messages that wait for their echo and the watch over whether it is alive. */

import type { Reason, SentMessage } from "./connection";
import { type Frame, KEEPALIVE, parseFrame } from "./frames";

const SECOND = 1_000;
const MAX_TIMEOUT = 2 ** 31 - 1; // a longer one would run out at once
const OPEN_TIMEOUT = 30 * SECOND; // a cold start of both functions takes seconds
// Send a keep-alive if a message gets no answer in this time. End the socket if the keep-alive gets none either.
const ANSWER_TIMEOUT = 10 * SECOND;
const ECHO_TIMEOUT = 30 * SECOND; // API Gateway waits 29 s for the function
const QUIET_AFTER = 30 * SECOND; // without a frame: a tab that gets focus then asks whether the socket is alive
const OPEN = 1; // WebSocket.OPEN
const MESSAGE_TOO_BIG = 1009; // RFC 6455 section 7.4.1
const CLOSE_TIMEOUT = 2 * SECOND;

export interface SocketEvents {
  onOpen(): void;
  onFrame(frame: Frame): void;
  /** Called once, after an open socket's end and for a socket that did not open. */
  onEnd(reason: Reason): void;
}

export class Socket {
  readonly timers = new Timers<"open" | "stable" | "renewal" | "expiry" | "keepalive" | "answer" | "drain">();
  isStable = false;
  /** Replaces the close code as the reason of the end. */
  endReason: Reason | undefined;
  readonly #webSocket: WebSocket;
  readonly #keepAliveInterval: number;
  readonly #events: SocketEvents;
  #unconfirmed: Outgoing[] = [];
  #receivedAt = 0;
  /** A keep-alive was sent and no frame has come since. */
  #isProbed = false;
  #hasEnded = false;

  constructor(webSocket: WebSocket, keepAliveInterval: number, events: SocketEvents) {
    this.#webSocket = webSocket;
    this.#keepAliveInterval = keepAliveInterval;
    this.#events = events;
    this.timers.start("open", OPEN_TIMEOUT, () => this.end({ kind: "not_opened" }));
    webSocket.onopen = () => {
      this.timers.stop("open");
      this.#receivedAt = Date.now();
      this.#awaitIdle();
      events.onOpen();
    };
    webSocket.onmessage = ({ data }) => {
      this.timers.stop("answer");
      this.#isProbed = false;
      this.#receivedAt = Date.now();
      this.#awaitIdle();
      events.onFrame(parseFrame(String(data)));
    };
    webSocket.onclose = ({ code, reason }) => {
      if (code === MESSAGE_TOO_BIG) {
        this.refuseLargest();
      }
      this.end({ kind: "lost", code, text: reason });
    };
  }

  /** A socket that the server is closing discards what is sent. */
  get isOpen(): boolean {
    return !this.#hasEnded && this.#webSocket.readyState === OPEN;
  }

  transmit(message: Outgoing): void {
    this.#unconfirmed.push(message);
    this.#webSocket.send(message.text);
    this.#awaitIdle();
    if (!this.timers.isRunning("answer")) {
      this.timers.start("answer", ANSWER_TIMEOUT, () => this.#probe());
    }
    message.become("sent");
  }

  /** The echo of a text has come: confirm the oldest message with it. Return whether there was one. */
  confirm(text: string): boolean {
    return this.#setOutcome(
      this.#unconfirmed.find((message) => message.text === text),
      "echoed",
    );
  }

  /** Mark the largest message as refused: the server does not say which one was too large. */
  refuseLargest(): void {
    const [largest] = [...this.#unconfirmed].sort((a, b) => b.bytes - a.bytes);
    this.#setOutcome(largest, "refused");
  }

  #setOutcome(message: Outgoing | undefined, state: "echoed" | "refused"): boolean {
    if (!message) {
      return false;
    }
    this.#unconfirmed.splice(this.#unconfirmed.indexOf(message), 1);
    message.become(state);
    return true;
  }

  probeIfQuiet(): void {
    if (Date.now() - this.#receivedAt > QUIET_AFTER) {
      this.#probe();
    }
  }

  /** Send a keep-alive. Without any frame in answer the socket is dead. */
  #probe(): void {
    this.#webSocket.send(KEEPALIVE);
    this.#awaitIdle();
    if (!this.#isProbed) {
      this.#isProbed = true;
      this.timers.start("answer", ANSWER_TIMEOUT, () => this.end({ kind: "no_answer" }));
    }
  }

  #awaitIdle(): void {
    this.timers.start("keepalive", this.#keepAliveInterval, () => this.#probe());
  }

  /** Close and wait for the closing handshake, for a bounded time. No event follows. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#release();
      const timer = setTimeout(resolve, CLOSE_TIMEOUT);
      this.#webSocket.onclose = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#webSocket.close(1000);
    });
  }

  /** End now. A dead socket's own `close` event may be minutes away. */
  end(reason: Reason): void {
    if (!this.#hasEnded) {
      this.#release();
      this.#webSocket.close(1000);
      this.#events.onEnd(this.endReason ?? reason);
    }
  }

  #release(): void {
    this.#hasEnded = true;
    this.timers.stopAll();
    this.#webSocket.onopen = null;
    this.#webSocket.onmessage = null;
    for (const message of this.#unconfirmed.splice(0)) {
      message.become("unconfirmed");
    }
  }
}

/** A message and what has become of it. */
export class Outgoing {
  readonly id: number;
  readonly text: string;
  readonly bytes: number;
  #snapshot: SentMessage;
  readonly #onChange: ((message: SentMessage) => void) | undefined;
  #transmittedAt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(id: number, text: string, onChange: ((message: SentMessage) => void) | undefined) {
    this.id = id;
    // As the socket encodes it: a lone surrogate becomes U+FFFD, and the echo must match.
    const encoded = new TextEncoder().encode(text);
    this.bytes = encoded.length;
    this.text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(encoded);
    this.#snapshot = { id, text: this.text, state: "queued", sentAt: undefined, roundTripMs: undefined };
    this.#onChange = onChange;
  }

  become(state: SentMessage["state"]): void {
    const previous = this.#snapshot;
    if (state === "unconfirmed" && previous.state === "unconfirmed") {
      return; // after 30 s, and now its socket has ended
    }
    clearTimeout(this.#timer);
    if (state === "sent") {
      this.#transmittedAt = performance.now();
      this.#timer = setTimeout(() => this.become("unconfirmed"), ECHO_TIMEOUT);
      this.#snapshot = { ...previous, state, sentAt: Date.now() };
    } else {
      const roundTripMs = state === "echoed" ? performance.now() - this.#transmittedAt : undefined;
      this.#snapshot = { ...previous, state, roundTripMs };
    }
    this.#onChange?.(this.#snapshot);
  }
}

/** Named timers, of which each name runs once at most. */
export class Timers<Name extends string> {
  readonly #running = new Map<Name, ReturnType<typeof setTimeout>>();

  start(name: Name, milliseconds: number, action: () => void): void {
    this.stop(name);
    const run = () => {
      this.#running.delete(name);
      action();
    };
    this.#running.set(name, setTimeout(run, Math.min(milliseconds, MAX_TIMEOUT)));
  }

  stop(name: Name): void {
    clearTimeout(this.#running.get(name));
    this.#running.delete(name);
  }

  stopAll(): void {
    for (const name of this.#running.keys()) {
      this.stop(name);
    }
  }

  isRunning(name: Name): boolean {
    return this.#running.has(name);
  }
}
