/**
 * A WebSocket connection that stays up: it reconnects, replaces itself before its token or API Gateway's two hours run
 * out, and says what became of every message.
 *
 * It needs `WebSocket`, timers and the three modules that it imports. It does not need React or Cognito, so any page can
 * use it. docs/clients.md shows how.
 */

import { isTokenSuspect, retryDelay, SUSPEND_AFTER_FAILURES } from "./backoff";
import type { Frame } from "./frames";
import { Outgoing, Socket, Timers } from "./socket";

/**
 * - `initialized`: not started yet.
 * - `connecting`: an attempt is under way.
 * - `connected`: messages are sent at once.
 * - `disconnected`: waits a short time for the next attempt.
 * - `suspended`: several attempts failed in a row; it retries about every 30 s.
 * - `closing`, `closed`: `close()` was called.
 * - `failed`: the session has ended; it does not retry.
 */
export type ConnectionState =
  | "initialized"
  | "connecting"
  | "connected"
  | "disconnected"
  | "suspended"
  | "closing"
  | "closed"
  | "failed";

/**
 * Why there is no connection.
 *
 * - `not_opened`: the socket did not open. A browser does not tell a refusal (401, 403, 429, 500) from an
 *   outage.
 * - `lost`: an open socket was closed, with this close code and close reason.
 * - `no_answer`: the server did not answer a keep-alive, so the socket is dead.
 * - `token_expired`: the ID token of this connection expired.
 * - `token_unavailable`: `getIdToken` failed, for example because Cognito cannot be reached.
 * - `session_ended`: `getIdToken` threw SessionEnded.
 */
export type Reason =
  | { readonly kind: "not_opened" }
  | { readonly kind: "lost"; readonly code: number; readonly text: string }
  | { readonly kind: "no_answer" }
  | { readonly kind: "token_expired" }
  | { readonly kind: "token_unavailable"; readonly error: unknown }
  | { readonly kind: "session_ended" };

export interface Status {
  readonly state: ConnectionState;
  readonly reason: Reason | undefined;
  /** When the next attempt starts, in milliseconds since the epoch. */
  readonly retryAt: number | undefined;
  /** Attempts that failed in a row. */
  readonly failures: number;
}

/**
 * A message that was given to `send()`.
 *
 * - `queued`: waits for a connection.
 * - `sent`: its echo has not come yet.
 * - `echoed`: its echo has come, after `roundTripMs`.
 * - `unconfirmed`: its socket closed before the echo came, or 30 s have passed. It may have arrived; it is not sent
 *   again.
 * - `refused`: the server takes no message of this size.
 * - `discarded`: the connection was closed before it could be sent.
 */
export interface SentMessage {
  readonly id: number;
  readonly text: string;
  readonly state: "queued" | "sent" | "echoed" | "unconfirmed" | "refused" | "discarded";
  /** In milliseconds since the epoch. */
  readonly sentAt: number | undefined;
  readonly roundTripMs: number | undefined;
}

/** `getIdToken` throws this when there is no session any more, so that retrying is useless. */
export class SessionEnded extends Error {}

/** `send()` throws this when `QUEUE_LIMIT` messages are waiting for a connection. */
export class QueueFull extends Error {}

export interface ConnectionOptions {
  /** `wss://…/stage`, without a query string. */
  readonly endpoint: string;
  /** Where the deployment expects the ID token. */
  readonly credential: "querystring" | "subprotocol";
  /** API Gateway closes a connection without messages after this time. */
  readonly idleLimitSeconds?: number | undefined;
  /** API Gateway closes every connection after this time. */
  readonly connectionLimitSeconds?: number | undefined;
  /**
   * Return an ID token, a new one from Cognito with `forceRefresh`.
   *
   * Throws SessionEnded if nobody is signed in any more, anything else if the token cannot be had just now.
   */
  getIdToken(options: { forceRefresh: boolean }): Promise<string>;
  /** Called at every change of the status. */
  onStatus?(status: Status): void;
  /** Called at every change of a sent message; `id` tells which. */
  onSent?(message: SentMessage): void;
  /**
   * Called for pushes and error frames.
   *
   * While the connection is being replaced, two sockets are open for some seconds. A push to all connections of a user
   * then arrives twice.
   */
  onReceived?(frame: Frame): void;
}

export const QUEUE_LIMIT = 100;

const SUBPROTOCOL = "echo.v1";
const TOKEN_SUBPROTOCOL_PREFIX = "idToken.";

const IDLE_LIMIT_SECONDS = 600;
const CONNECTION_LIMIT_SECONDS = 7_200;

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const TOKEN_TIMEOUT = 30 * SECOND;
const STABLE_AFTER = 10 * SECOND; // an open socket then resets the backoff
const EXPIRED_CLOSE_TIMEOUT = 2 * SECOND; // the server closes the socket after its token_expired
const FOCUS_INTERVAL = 2 * SECOND; // at least, between attempts that are due to focus
const DRAIN_TIME = 5 * SECOND; // for echoes under way to a replaced socket
const MAX_KEEPALIVE_INTERVAL = 8 * MINUTE;
const MAX_RENEWAL_LEAD = 3 * MINUTE;
const MIN_TOKEN_LIFE = MINUTE; // of the token of an attempt
const MIN_RENEWED_TOKEN_LIFE = 2 * MAX_RENEWAL_LEAD; // of the token of a replacement

export class Connection {
  readonly #options: ConnectionOptions;
  readonly #keepAliveInterval: number;
  readonly #connectionLimit: number;
  readonly #timers = new Timers<"retry">();
  #status: Status = { state: "initialized", reason: undefined, retryAt: undefined, failures: 0 };

  /** The open socket that carries messages. */
  #current: Socket | undefined;
  /** The socket that is being opened, to replace `#current` if there is one. */
  #next: Socket | undefined;
  /** Replaced sockets that are kept open for echoes under way. */
  readonly #drained = new Set<Socket>();

  readonly #queue: Outgoing[] = [];
  #messageCount = 0;
  #failures = 0;
  /** Incremented to cancel a pending token fetch. A result with an older id is ignored. */
  #attemptId = 0;
  #closing: Promise<void> | undefined;
  #attemptedAt = 0;
  #acceptedToken: string | undefined;
  #failedToken: string | undefined;
  #hasRefreshed = false;
  #clockSkew = 0;

  constructor(options: ConnectionOptions) {
    // A callback that throws must not stop the connection. The browser reports the error as uncaught.
    this.#options = {
      ...options,
      getIdToken: (request) => options.getIdToken(request),
      onStatus: (status) => runSafely(() => options.onStatus?.(status)),
      onSent: (message) => runSafely(() => options.onSent?.(message)),
      onReceived: (frame) => runSafely(() => options.onReceived?.(frame)),
    };
    const idleLimit = (options.idleLimitSeconds ?? IDLE_LIMIT_SECONDS) * SECOND;
    this.#keepAliveInterval = Math.min(MAX_KEEPALIVE_INTERVAL, 0.8 * idleLimit);
    this.#connectionLimit = (options.connectionLimitSeconds ?? CONNECTION_LIMIT_SECONDS) * SECOND;
  }

  get status(): Status {
    return this.#status;
  }

  /** Open the connection, also again after `closed` or `failed`. */
  connect(): void {
    if (this.#closing) {
      void this.#closing.then(() => this.connect());
    } else if (["initialized", "closed", "failed"].includes(this.#status.state)) {
      this.#failures = 0;
      this.#hasRefreshed = false;
      this.#listen("addEventListener");
      void this.#attempt();
    }
  }

  /** Attempt to connect now instead of at `retryAt`. */
  retryNow(): void {
    if (this.#status.state === "disconnected" || this.#status.state === "suspended") {
      void this.#attempt();
    }
  }

  /**
   * Send a text, or queue it until there is a connection, and return the message's id.
   *
   * Each message is transmitted at most once, in the order of the calls. Throws QueueFull if too many messages wait, and
   * an Error once the connection was closed or has failed.
   */
  send(text: string): number {
    if (["closing", "closed", "failed"].includes(this.#status.state)) {
      throw new Error(`the connection is ${this.#status.state}: call connect() first`);
    }
    if (this.#queue.length >= QUEUE_LIMIT) {
      throw new QueueFull(`${QUEUE_LIMIT} messages are waiting for a connection already`);
    }
    this.#messageCount += 1;
    const message = new Outgoing(this.#messageCount, text, this.#options.onSent);
    if (this.#current?.isOpen && this.#queue.length === 0) {
      this.#current.transmit(message);
    } else {
      this.#queue.push(message);
      message.become("queued");
    }
    return message.id;
  }

  /**
   * Close the connection and discard the messages that are queued. `connect()` opens it again.
   *
   * Resolves when the closing handshake is over, or after two seconds without an answer.
   */
  close(): Promise<void> {
    if (this.#status.state === "initialized" || this.#status.state === "closed") {
      return Promise.resolve();
    }
    this.#closing ??= this.#close().finally(() => {
      this.#closing = undefined;
    });
    return this.#closing;
  }

  async #close(): Promise<void> {
    const sockets = this.#release();
    this.#setStatus("closing");
    this.#discardQueue();
    await Promise.all(sockets.map((socket) => socket.close()));
    this.#setStatus("closed");
  }

  async #attempt(): Promise<void> {
    this.#timers.stop("retry");
    const attemptId = this.#attemptId;
    this.#attemptedAt = Date.now();
    this.#setStatus("connecting", this.#status.reason);
    try {
      const idToken = await this.#fetchToken(MIN_TOKEN_LIFE);
      if (attemptId === this.#attemptId) {
        this.#open(idToken);
      }
    } catch (error) {
      if (attemptId !== this.#attemptId) {
        return;
      }
      if (error instanceof SessionEnded) {
        this.#fail();
      } else {
        this.#failures += 1;
        this.#retry({ kind: "token_unavailable", error });
      }
    }
  }

  /** Open a second socket before the first one ends. If that fails, keep the first one until it ends. */
  async #replace(): Promise<void> {
    const attemptId = this.#attemptId;
    try {
      const idToken = await this.#fetchToken(MIN_RENEWED_TOKEN_LIFE);
      if (attemptId === this.#attemptId) {
        this.#open(idToken);
      }
    } catch (error) {
      if (attemptId === this.#attemptId && error instanceof SessionEnded) {
        this.#fail();
      }
    }
  }

  #open(idToken: string): void {
    let webSocket: WebSocket;
    try {
      webSocket = this.#createWebSocket(idToken);
    } catch {
      // The endpoint or the token is malformed. The error is not kept: its text can contain the token.
      this.#onOpenFailed(idToken);
      return;
    }
    const socket: Socket = new Socket(webSocket, this.#keepAliveInterval, {
      onOpen: () => this.#onSocketOpen(socket, idToken),
      onFrame: (frame) => this.#receive(socket, idToken, frame),
      onEnd: (reason) => (socket === this.#next ? this.#onOpenFailed(idToken) : this.#onSocketEnd(socket, reason)),
    });
    this.#next = socket;
  }

  #createWebSocket(idToken: string): WebSocket {
    const { endpoint, credential } = this.#options;
    return credential === "subprotocol"
      ? new WebSocket(endpoint, [SUBPROTOCOL, TOKEN_SUBPROTOCOL_PREFIX + idToken])
      : new WebSocket(`${endpoint}?idToken=${encodeURIComponent(idToken)}`);
  }

  #onSocketOpen(socket: Socket, idToken: string): void {
    const previous = this.#current;
    if (previous) {
      this.#drained.add(previous);
      previous.timers.start("drain", DRAIN_TIME, () => previous.end({ kind: "lost", code: 1000, text: "replaced" }));
    }
    this.#current = socket;
    this.#next = undefined;
    this.#acceptedToken = idToken;

    const tokenLife = this.#remainingLife(idToken);
    const life = Math.min(tokenLife, this.#connectionLimit);
    const lead = Math.min(MAX_RENEWAL_LEAD, 0.2 * life) * (0.5 + 0.5 * Math.random());
    socket.timers.start("renewal", Math.max(SECOND, life - lead), () => void this.#replace());
    socket.timers.start("expiry", tokenLife, () => socket.end({ kind: "token_expired" }));
    socket.timers.start("stable", STABLE_AFTER, () => {
      socket.isStable = true;
      this.#failures = 0;
      this.#hasRefreshed = false;
      this.#failedToken = undefined;
    });

    this.#setStatus("connected");
    while (socket.isOpen) {
      const message = this.#queue.shift();
      if (!message) {
        break;
      }
      socket.transmit(message);
    }
  }

  #receive(socket: Socket, idToken: string, frame: Frame): void {
    if (frame.kind === "keepalive" || (frame.kind === "echo" && socket.confirm(frame.text))) {
      return;
    }
    if (frame.kind === "error" && frame.code === "message_too_large") {
      socket.refuseLargest();
    }
    if (frame.kind === "error" && frame.code === "token_expired") {
      socket.endReason = { kind: "token_expired" };
      // The server's clock is past `exp`, so ours is slow if this token still looks good.
      this.#clockSkew = Math.min(this.#clockSkew, Date.now() - readClaims(idToken).exp * SECOND);
      socket.timers.start("expiry", EXPIRED_CLOSE_TIMEOUT, () => socket.end({ kind: "token_expired" }));
    }
    this.#options.onReceived?.(frame);
  }

  /** The socket that was being opened did not open. */
  #onOpenFailed(idToken: string): void {
    this.#next = undefined;
    if (!this.#current) {
      this.#failures += 1;
      this.#failedToken = idToken;
      this.#retry({ kind: "not_opened" });
    }
  }

  /** A socket that was open has ended. */
  #onSocketEnd(socket: Socket, reason: Reason): void {
    this.#drained.delete(socket);
    if (socket !== this.#current) {
      return;
    }
    this.#current = undefined;
    if (!socket.isStable) {
      this.#failures += 1;
    }
    if (this.#next) {
      this.#setStatus("connecting", reason);
    } else {
      this.#retry(reason);
    }
  }

  #retry(reason: Reason): void {
    const delay = retryDelay(this.#failures);
    this.#attemptId += 1;
    const state = this.#failures >= SUSPEND_AFTER_FAILURES ? "suspended" : "disconnected";
    this.#timers.start("retry", delay, () => void this.#attempt());
    this.#setStatus(state, reason, Date.now() + delay);
  }

  #fail(): void {
    const sockets = this.#release();
    this.#setStatus("failed", { kind: "session_ended" });
    this.#discardQueue();
    for (const socket of sockets) {
      void socket.close();
    }
  }

  #discardQueue(): void {
    for (const message of this.#queue.splice(0)) {
      message.become("discarded");
    }
  }

  /** Stop everything and return the sockets that are still to be closed. */
  #release(): Socket[] {
    const sockets = [this.#current, this.#next, ...this.#drained].filter((socket) => socket !== undefined);
    this.#attemptId += 1;
    this.#timers.stopAll();
    this.#listen("removeEventListener");
    this.#current = undefined;
    this.#next = undefined;
    this.#drained.clear();
    return sockets;
  }

  /**
   * Return a token that lives for at least `minimumLife`, or the best that Cognito gives.
   *
   * A suspect token is refreshed once, not at every attempt. If the refresh fails, keep using a token that has not
   * expired.
   */
  async #fetchToken(minimumLife: number): Promise<string> {
    const idToken = await this.#getIdToken(false);
    // A token that was issued in our future proves that our clock is slow.
    this.#clockSkew = Math.min(this.#clockSkew, Date.now() - readClaims(idToken).iat * SECOND);
    const isGood = this.#remainingLife(idToken) >= minimumLife;
    const isSuspect =
      !this.#hasRefreshed &&
      idToken === this.#failedToken &&
      isTokenSuspect(this.#failures, idToken === this.#acceptedToken);
    if (isGood && !isSuspect) {
      return idToken;
    }
    this.#hasRefreshed ||= isSuspect;
    try {
      const fresh = await this.#getIdToken(true);
      this.#clockSkew = Date.now() - readClaims(fresh).iat * SECOND;
      return fresh;
    } catch (error) {
      if (isGood && !(error instanceof SessionEnded)) {
        return idToken;
      }
      throw error;
    }
  }

  #getIdToken(forceRefresh: boolean): Promise<string> {
    return new Promise((resolve, reject) => {
      const timeout = new Error(`no ID token after ${TOKEN_TIMEOUT / SECOND} s`);
      const timer = setTimeout(() => reject(timeout), TOKEN_TIMEOUT);
      this.#options
        .getIdToken({ forceRefresh })
        .then(resolve, reject)
        .finally(() => clearTimeout(timer));
    });
  }

  /** In milliseconds, by the server's clock as far as it is known: this machine's may be wrong. */
  #remainingLife(idToken: string): number {
    return readClaims(idToken).exp * SECOND - (Date.now() - this.#clockSkew);
  }

  /** The user is back in the tab: attempt at once, but not at every click, or find out whether the socket is alive. */
  readonly #onFocus = (): void => {
    if (globalThis.document?.visibilityState === "hidden") {
      return;
    }
    if (Date.now() - this.#attemptedAt >= FOCUS_INTERVAL) {
      this.retryNow();
    }
    this.#current?.probeIfQuiet();
  };

  /** The network is back: attempt at once, or find out whether the socket is alive. */
  readonly #onOnline = (): void => {
    if (!this.#current) {
      this.#next?.end({ kind: "not_opened" }); // a handshake sent before may never be answered
    }
    this.retryNow();
    this.#current?.probeIfQuiet();
  };

  #listen(method: "addEventListener" | "removeEventListener"): void {
    globalThis.window?.[method]("online", this.#onOnline);
    globalThis.window?.[method]("focus", this.#onFocus);
    globalThis.document?.[method]("visibilitychange", this.#onFocus);
  }

  #setStatus(state: ConnectionState, reason?: Reason, retryAt?: number): void {
    this.#status = { state, reason, retryAt, failures: this.#failures };
    this.#options.onStatus?.(this.#status);
  }
}

/** Read a token's times, in seconds since the epoch. The server verifies the token; here they only set timers. */
function readClaims(idToken: string): { iat: number; exp: number } {
  const payload = idToken.split(".")[1] ?? "";
  return JSON.parse(atob(payload.replace(/-/g, "+").replace(/_/g, "/")));
}

function runSafely(callback: () => void): void {
  try {
    callback();
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
