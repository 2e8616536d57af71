/**
 * A WebSocket connection that stays up. It reconnects after a loss, opens a new socket before the token expires or API
 * Gateway's limit of two hours is reached, and reports the outcome of every message.
 *
 * It needs `WebSocket`, timers and the three modules that it imports. It does not need React or Cognito, so any page can
 * use it. docs/clients.md shows how.
 */

import { computeRetryDelay, SUSPEND_AFTER_FAILURES, shouldRefreshToken } from "./backoff";
import type { Frame } from "./frames";
import { OutgoingMessage, Socket, Timers } from "./socket";

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
 * - `refused`: the message is larger than the server accepts.
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
   * Return an ID token. With `forceRefresh`, get a new one from Cognito.
   *
   * Throw SessionEnded if the user is not signed in any more, and any other error if a retry can help.
   */
  getIdToken(options: { forceRefresh: boolean }): Promise<string>;
  /** Called at every change of the status. */
  onStatus?(status: Status): void;
  /** Called at every change of a sent message, which its `id` identifies. */
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
const STABLE_AFTER = 10 * SECOND; // a socket that is open for this long resets the backoff
const EXPIRED_CLOSE_TIMEOUT = 2 * SECOND; // after token_expired, the server has this long to close the socket
const MIN_FOCUS_RETRY_INTERVAL = 2 * SECOND;
const DRAIN_TIME = 5 * SECOND; // a replaced socket stays open this long for its last echoes
const MAX_KEEPALIVE_INTERVAL = 8 * MINUTE;
const MAX_REPLACEMENT_LEAD = 3 * MINUTE; // a replacement opens at most this long before the old socket ends
const MIN_TOKEN_LIFETIME = MINUTE;
const MIN_REPLACEMENT_TOKEN_LIFETIME = 2 * MAX_REPLACEMENT_LEAD;

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
  /** Replaced sockets that stay open for their last echoes. */
  readonly #draining = new Set<Socket>();

  readonly #queue: OutgoingMessage[] = [];
  #messageCount = 0;
  #failures = 0;
  /** Incremented to cancel a pending token fetch. A result with an older id is ignored. */
  #attemptId = 0;
  #closing: Promise<void> | undefined;
  #attemptedAt = 0;
  #acceptedToken: string | undefined;
  #failedToken: string | undefined;
  /** Whether a token that may be refused was refreshed since the last stable connection. */
  #hasRefreshedRefusedToken = false;
  /** Estimate of this machine's clock minus the server's, in milliseconds. */
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
      this.#hasRefreshedRefusedToken = false;
      this.#updateListeners("addEventListener");
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
   * Each message is transmitted at most once, in the order of the calls. Throw QueueFull if too many messages are
   * queued, and an Error if the connection was closed or has failed.
   */
  send(text: string): number {
    if (["closing", "closed", "failed"].includes(this.#status.state)) {
      throw new Error(`the connection is ${this.#status.state}: call connect() first`);
    }
    if (this.#queue.length >= QUEUE_LIMIT) {
      throw new QueueFull(
        `${QUEUE_LIMIT} messages are waiting for a connection, which is the limit: send this one again later`,
      );
    }
    this.#messageCount += 1;
    const message = new OutgoingMessage(this.#messageCount, text, this.#options.onSent);
    if (this.#current?.isOpen && this.#queue.length === 0) {
      this.#current.transmit(message);
    } else {
      this.#queue.push(message);
      message.setState("queued");
    }
    return message.id;
  }

  /**
   * Close the connection and discard the queued messages. `connect()` opens it again.
   *
   * Resolve when the closing handshake is complete, or after two seconds without an answer.
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
    const sockets = this.#stop();
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
      const idToken = await this.#fetchToken(MIN_TOKEN_LIFETIME);
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
        this.#scheduleRetry({ kind: "token_unavailable", error });
      }
    }
  }

  /** Open a second socket before the first one ends. If that fails, keep the first one until it ends. */
  async #openReplacement(): Promise<void> {
    const attemptId = this.#attemptId;
    try {
      const idToken = await this.#fetchToken(MIN_REPLACEMENT_TOKEN_LIFETIME);
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
      onFrame: (frame) => this.#onFrame(socket, idToken, frame),
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
      this.#draining.add(previous);
      previous.timers.start("drain", DRAIN_TIME, () => previous.end({ kind: "lost", code: 1000, text: "replaced" }));
    }
    this.#current = socket;
    this.#next = undefined;
    this.#acceptedToken = idToken;

    const tokenLifetime = this.#getRemainingLifetime(idToken);
    const lifetime = Math.min(tokenLifetime, this.#connectionLimit);
    const lead = Math.min(MAX_REPLACEMENT_LEAD, 0.2 * lifetime) * (0.5 + 0.5 * Math.random());
    socket.timers.start("replacement", Math.max(SECOND, lifetime - lead), () => void this.#openReplacement());
    socket.timers.start("expiry", tokenLifetime, () => socket.end({ kind: "token_expired" }));
    socket.timers.start("stable", STABLE_AFTER, () => {
      socket.isStable = true;
      this.#failures = 0;
      this.#hasRefreshedRefusedToken = false;
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

  #onFrame(socket: Socket, idToken: string, frame: Frame): void {
    if (frame.kind === "keepalive" || (frame.kind === "echo" && socket.confirmOldest(frame.text))) {
      return;
    }
    if (frame.kind === "error" && frame.code === "message_too_large") {
      socket.markLargestRefused();
    }
    if (frame.kind === "error" && frame.code === "token_expired") {
      socket.endReason = { kind: "token_expired" };
      // The server's clock is past `exp`. If ours is not, it is slow.
      this.#clockSkew = Math.min(this.#clockSkew, Date.now() - readClaims(idToken).exp * SECOND);
      socket.timers.start("expiry", EXPIRED_CLOSE_TIMEOUT, () => socket.end({ kind: "token_expired" }));
    }
    this.#options.onReceived?.(frame);
  }

  /** Schedule a retry, unless an older socket is still open. */
  #onOpenFailed(idToken: string): void {
    this.#next = undefined;
    if (!this.#current) {
      this.#failures += 1;
      this.#failedToken = idToken;
      this.#scheduleRetry({ kind: "not_opened" });
    }
  }

  /** Schedule a retry, unless another socket is open or being opened. */
  #onSocketEnd(socket: Socket, reason: Reason): void {
    this.#draining.delete(socket);
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
      this.#scheduleRetry(reason);
    }
  }

  #scheduleRetry(reason: Reason): void {
    const delay = computeRetryDelay(this.#failures);
    this.#attemptId += 1;
    const state = this.#failures >= SUSPEND_AFTER_FAILURES ? "suspended" : "disconnected";
    this.#timers.start("retry", delay, () => void this.#attempt());
    this.#setStatus(state, reason, Date.now() + delay);
  }

  #fail(): void {
    const sockets = this.#stop();
    this.#setStatus("failed", { kind: "session_ended" });
    this.#discardQueue();
    for (const socket of sockets) {
      void socket.close();
    }
  }

  #discardQueue(): void {
    for (const message of this.#queue.splice(0)) {
      message.setState("discarded");
    }
  }

  /** Stop timers, listeners and attempts. Return the sockets, which the caller must close. */
  #stop(): Socket[] {
    const sockets = [this.#current, this.#next, ...this.#draining].filter((socket) => socket !== undefined);
    this.#attemptId += 1;
    this.#timers.stopAll();
    this.#updateListeners("removeEventListener");
    this.#current = undefined;
    this.#next = undefined;
    this.#draining.clear();
    return sockets;
  }

  /**
   * Return a token that is valid for at least `minimumLifetime`, or else a new one from Cognito.
   *
   * A token that the server may have refused is refreshed once, not at every attempt. If that refresh fails, the token is
   * used again if it is valid for long enough.
   */
  async #fetchToken(minimumLifetime: number): Promise<string> {
    const idToken = await this.#getIdToken(false);
    // A token that was issued in our future proves that our clock is slow.
    this.#clockSkew = Math.min(this.#clockSkew, Date.now() - readClaims(idToken).iat * SECOND);
    const livesLongEnough = this.#getRemainingLifetime(idToken) >= minimumLifetime;
    const mayBeRefused =
      !this.#hasRefreshedRefusedToken &&
      idToken === this.#failedToken &&
      shouldRefreshToken(this.#failures, idToken === this.#acceptedToken);
    if (livesLongEnough && !mayBeRefused) {
      return idToken;
    }
    this.#hasRefreshedRefusedToken ||= mayBeRefused;
    try {
      const fresh = await this.#getIdToken(true);
      this.#clockSkew = Date.now() - readClaims(fresh).iat * SECOND;
      return fresh;
    } catch (error) {
      if (livesLongEnough && !(error instanceof SessionEnded)) {
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

  /** Return for how many milliseconds the token is valid, by the server's clock: this machine's may be wrong. */
  #getRemainingLifetime(idToken: string): number {
    return readClaims(idToken).exp * SECOND - (Date.now() - this.#clockSkew);
  }

  /** The tab has the focus: retry now, but not at every focus event, or check whether the socket is alive. */
  readonly #onFocus = (): void => {
    if (globalThis.document?.visibilityState === "hidden") {
      return;
    }
    if (Date.now() - this.#attemptedAt >= MIN_FOCUS_RETRY_INTERVAL) {
      this.retryNow();
    }
    this.#current?.probeIfQuiet();
  };

  /** The network is back: retry now, or check whether the socket is alive. */
  readonly #onOnline = (): void => {
    if (!this.#current) {
      this.#next?.end({ kind: "not_opened" }); // its handshake, sent before the outage, may never be answered
    }
    this.retryNow();
    this.#current?.probeIfQuiet();
  };

  #updateListeners(method: "addEventListener" | "removeEventListener"): void {
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
