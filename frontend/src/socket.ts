/** One WebSocket of a Connection. It matches echoes to messages, and sends keep-alives to detect a dead socket. */

import type { Reason, SentMessage } from "./connection";
import { type Frame, KEEPALIVE, parseFrame } from "./frames";

const SECOND = 1_000;
const MAX_TIMEOUT = 2 ** 31 - 1; // setTimeout() runs a longer one at once
const OPEN_TIMEOUT = 30 * SECOND; // a cold start of both functions takes seconds
// Send a keep-alive if a message gets no answer in this time. End the socket if the keep-alive gets none either.
const ANSWER_TIMEOUT = 10 * SECOND;
const ECHO_TIMEOUT = 30 * SECOND; // API Gateway waits 29 s for the function
const QUIET_AFTER = 30 * SECOND; // without a frame; then a tab that gets focus sends a keep-alive
const OPEN = 1; // WebSocket.OPEN
const MESSAGE_TOO_BIG = 1009; // RFC 6455 section 7.4.1
const CLOSE_TIMEOUT = 2 * SECOND;

export interface SocketEvents {
  onOpen(): void;
  onFrame(frame: Frame): void;
  /** Called once: when an open socket has ended, or when a socket did not open. */
  onEnd(reason: Reason): void;
}

export class Socket {
  readonly timers = new Timers<"open" | "stable" | "replacement" | "expiry" | "keepalive" | "answer" | "drain">();
  isStable = false;
  /** Reported instead of the close code, if it is set. */
  endReason: Reason | undefined;
  readonly #webSocket: WebSocket;
  readonly #keepAliveInterval: number;
  readonly #events: SocketEvents;
  #unconfirmed: OutgoingMessage[] = [];
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
      this.#restartKeepAliveTimer();
      events.onOpen();
    };
    webSocket.onmessage = ({ data }) => {
      this.timers.stop("answer");
      this.#isProbed = false;
      this.#receivedAt = Date.now();
      this.#restartKeepAliveTimer();
      events.onFrame(parseFrame(String(data)));
    };
    webSocket.onclose = ({ code, reason }) => {
      if (code === MESSAGE_TOO_BIG) {
        this.markLargestRefused();
      }
      this.end({ kind: "lost", code, text: reason });
    };
  }

  /** Whether the socket can send. A socket that the server is closing discards messages. */
  get isOpen(): boolean {
    return !this.#hasEnded && this.#webSocket.readyState === OPEN;
  }

  transmit(message: OutgoingMessage): void {
    this.#unconfirmed.push(message);
    this.#webSocket.send(message.text);
    this.#restartKeepAliveTimer();
    if (!this.timers.isRunning("answer")) {
      this.timers.start("answer", ANSWER_TIMEOUT, () => this.#probe());
    }
    message.setState("sent");
  }

  /** Mark the oldest message with this text as echoed. Return whether there was one. */
  confirmOldest(text: string): boolean {
    return this.#setOutcome(
      this.#unconfirmed.find((message) => message.text === text),
      "echoed",
    );
  }

  /** Mark the largest message as refused: the server does not say which one was too large. */
  markLargestRefused(): void {
    const [largest] = [...this.#unconfirmed].sort((a, b) => b.bytes - a.bytes);
    this.#setOutcome(largest, "refused");
  }

  #setOutcome(message: OutgoingMessage | undefined, state: "echoed" | "refused"): boolean {
    if (!message) {
      return false;
    }
    this.#unconfirmed.splice(this.#unconfirmed.indexOf(message), 1);
    message.setState(state);
    return true;
  }

  probeIfQuiet(): void {
    if (Date.now() - this.#receivedAt > QUIET_AFTER) {
      this.#probe();
    }
  }

  /** Send a keep-alive, and end the socket if no frame follows. */
  #probe(): void {
    this.#webSocket.send(KEEPALIVE);
    this.#restartKeepAliveTimer();
    if (!this.#isProbed) {
      this.#isProbed = true;
      this.timers.start("answer", ANSWER_TIMEOUT, () => this.end({ kind: "no_answer" }));
    }
  }

  #restartKeepAliveTimer(): void {
    this.timers.start("keepalive", this.#keepAliveInterval, () => this.#probe());
  }

  /** Close and wait for the closing handshake, but at most CLOSE_TIMEOUT. `onEnd` is not called. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#stop();
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
      this.#stop();
      this.#webSocket.close(1000);
      this.#events.onEnd(this.endReason ?? reason);
    }
  }

  #stop(): void {
    this.#hasEnded = true;
    this.timers.stopAll();
    this.#webSocket.onopen = null;
    this.#webSocket.onmessage = null;
    for (const message of this.#unconfirmed.splice(0)) {
      message.setState("unconfirmed");
    }
  }
}

/** A message that was given to `send()`, with its state. */
export class OutgoingMessage {
  readonly id: number;
  readonly text: string;
  readonly bytes: number;
  #snapshot: SentMessage;
  readonly #onChange: ((message: SentMessage) => void) | undefined;
  #transmittedAt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(id: number, text: string, onChange: ((message: SentMessage) => void) | undefined) {
    this.id = id;
    // Encode as the socket does: it replaces a lone surrogate by U+FFFD, and the echo must match.
    const encoded = new TextEncoder().encode(text);
    this.bytes = encoded.length;
    this.text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(encoded);
    this.#snapshot = { id, text: this.text, state: "queued", sentAt: undefined, roundTripMs: undefined };
    this.#onChange = onChange;
  }

  setState(state: SentMessage["state"]): void {
    const previous = this.#snapshot;
    if (state === "unconfirmed" && previous.state === "unconfirmed") {
      return; // reported already, after ECHO_TIMEOUT
    }
    clearTimeout(this.#timer);
    if (state === "sent") {
      this.#transmittedAt = performance.now();
      this.#timer = setTimeout(() => this.setState("unconfirmed"), ECHO_TIMEOUT);
      this.#snapshot = { ...previous, state, sentAt: Date.now() };
    } else {
      const roundTripMs = state === "echoed" ? performance.now() - this.#transmittedAt : undefined;
      this.#snapshot = { ...previous, state, roundTripMs };
    }
    this.#onChange?.(this.#snapshot);
  }
}

/** Named timers. Starting a timer stops the running one with the same name. */
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
