import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { SUSPEND_AFTER_FAILURES } from "../src/backoff";
import {
  Connection,
  type ConnectionOptions,
  QUEUE_LIMIT,
  QueueFull,
  type SentMessage,
  SessionEnded,
  type Status,
} from "../src/connection";
import type { Frame } from "../src/frames";
import { FakeServer, makeToken } from "./fake-server";

const HOUR = 3_600_000;
const MINUTE = 60_000;

let server: FakeServer;
let windowEvents: EventTarget;

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(Math, "random").mockReturnValue(0.5);
  server = new FakeServer();
  server.install();
  windowEvents = new EventTarget();
  vi.stubGlobal("window", windowEvents);
});

afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

/** A fake session with Cognito: it keeps a token and refreshes it on demand. */
class Session {
  refreshes = 0;
  error: Error | undefined;
  refreshError: Error | undefined;
  lifeSeconds = 3600;
  token = makeToken(3600);

  readonly getIdToken = async ({ forceRefresh }: { forceRefresh: boolean }): Promise<string> => {
    if (this.error) throw this.error;
    if (forceRefresh) {
      this.refreshes += 1;
      if (this.refreshError) throw this.refreshError;
      this.token = makeToken(this.lifeSeconds);
    }
    return this.token;
  };
}

function create(options: Partial<ConnectionOptions> = {}, session = new Session()) {
  const statuses: Status[] = [];
  const sent = new Map<number, SentMessage>();
  const received: Frame[] = [];
  const connection = new Connection({
    endpoint: "wss://example.test/prod",
    credential: "querystring",
    getIdToken: session.getIdToken,
    onStatus: (status) => statuses.push(status),
    onSent: (message) => sent.set(message.id, message),
    onReceived: (frame) => received.push(frame),
    ...options,
  });
  return {
    connection,
    session,
    statuses,
    received,
    states: () => statuses.map((status) => status.state),
    sent: () => [...sent.values()].map(({ text, state }) => `${text} ${state}`),
    message: (id: number) => sent.get(id),
  };
}

async function createConnected(options: Partial<ConnectionOptions> = {}, session = new Session()) {
  const created = create(options, session);
  created.connection.connect();
  await advance(100);
  expect(created.connection.status.state).toBe("connected");
  return created;
}

async function advance(milliseconds: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

describe("opening", () => {
  test("goes from initialized through connecting to connected", async () => {
    const { connection, states } = create();
    expect(connection.status.state).toBe("initialized");

    connection.connect();
    await advance(100);

    expect(states()).toEqual(["connecting", "connected"]);
  });

  test("puts the token into the query string", async () => {
    const { session } = await createConnected();

    expect(server.last.url).toBe(`wss://example.test/prod?idToken=${session.token}`);
    expect(server.last.protocols).toBeUndefined();
  });

  test("puts the token into a subprotocol and not into the URL", async () => {
    const { session } = await createConnected({ credential: "subprotocol" });

    expect(server.last.url).toBe("wss://example.test/prod");
    expect(server.last.protocols).toEqual(["echo.v1", `idToken.${session.token}`]);
  });

  test("refreshes a token that lives for less than a minute", async () => {
    const session = new Session();
    session.token = makeToken(59);

    await createConnected({}, session);

    expect(session.refreshes).toBe(1);
    expect(server.last.url).toContain(session.token);
  });

  test("does not refresh a token that lives for a minute", async () => {
    const session = new Session();
    session.token = makeToken(61);

    await createConnected({}, session);

    expect(session.refreshes).toBe(0);
  });

  test("opens no second socket after a second connect()", async () => {
    const { connection } = await createConnected();

    connection.connect();
    await advance(MINUTE);

    expect(server.sockets).toHaveLength(1);
  });

  test("gives up a handshake without an answer after 30 s", async () => {
    server.handshakes = "ignore";
    const { connection } = create();
    connection.connect();

    await advance(29_000);
    expect(connection.status.state).toBe("connecting");
    await advance(1_500);

    expect(connection.status).toMatchObject({ state: "disconnected", reason: { kind: "not_opened" } });
  });

  test("stops waiting for a token after 30 s", async () => {
    const { connection } = create({ getIdToken: () => new Promise(() => {}) });
    connection.connect();

    await advance(30_500);

    expect(connection.status.reason).toMatchObject({ kind: "token_unavailable" });
  });
});

describe("retrying", () => {
  test("is disconnected after each failure, and suspended after several in a row", async () => {
    server.handshakes = "refuse";
    const { connection, statuses } = create();
    connection.connect();

    await advance(5 * MINUTE);

    const waiting = statuses.filter((status) => status.retryAt !== undefined);
    for (const { state, failures } of waiting) {
      expect(state).toBe(failures < SUSPEND_AFTER_FAILURES ? "disconnected" : "suspended");
    }
    expect(waiting.map((status) => status.failures)).toEqual(waiting.map((_, index) => index + 1));
    expect(connection.status.state).toBe("suspended");
  });

  test("starts the next attempt at retryAt", async () => {
    server.handshakes = "refuse";
    const { connection } = create();
    connection.connect();
    await advance(50);
    const { retryAt } = connection.status;
    expect(retryAt).toBeDefined();

    const before = server.sockets.length;
    await advance((retryAt ?? 0) - Date.now() - 1);
    expect(server.sockets).toHaveLength(before);
    await advance(2);

    expect(server.sockets).toHaveLength(before + 1);
  });

  test("retries about every 30 s while suspended, until the server accepts", async () => {
    server.handshakes = "refuse";
    const { connection } = create();
    connection.connect();
    await advance(2 * MINUTE);
    const before = server.sockets.length;
    await advance(10 * MINUTE);
    expect(server.sockets.length - before).toBe(20);

    server.handshakes = "accept";
    await advance(31_000);

    expect(connection.status.state).toBe("connected");
  });

  test("resets the backoff after a stable connection", async () => {
    server.handshakes = "refuse";
    const { connection } = create();
    connection.connect();
    await advance(10_000);
    server.handshakes = "accept";
    await advance(30_000);
    expect(connection.status.state).toBe("connected");

    server.last.drop(1006);

    expect(connection.status).toMatchObject({ state: "disconnected", failures: 0 });
  });

  test("backs off from a server that closes each socket at once", async () => {
    const { connection } = create();
    connection.connect();
    const closer = setInterval(() => {
      for (const socket of server.openSockets) socket.drop(1006);
    }, 100);

    await advance(5 * MINUTE);
    clearInterval(closer);

    expect(connection.status.state).toMatch(/suspended|connect/);
    expect(server.sockets.length).toBeLessThan(20);
  });

  test.each([
    ["retryNow() is called", (connection: Connection) => connection.retryNow()],
    ["the network is back", () => windowEvents.dispatchEvent(new Event("online"))],
    ["the tab gets focus", () => windowEvents.dispatchEvent(new Event("focus"))],
  ])("retries at once when %s", async (_, cause) => {
    server.handshakes = "refuse";
    const { connection } = create();
    connection.connect();
    await advance(3 * MINUTE);
    expect(connection.status.state).toBe("suspended");
    await advance((connection.status.retryAt ?? 0) - Date.now() - 5_000);
    const before = server.sockets.length;

    cause(connection);
    await advance(50);

    expect(server.sockets).toHaveLength(before + 1);
  });

  test("retries at most every two seconds in a tab that gets focus repeatedly", async () => {
    server.handshakes = "refuse";
    const { connection } = create();
    connection.connect();

    for (let count = 0; count < 100; count += 1) {
      windowEvents.dispatchEvent(new Event("focus"));
      await advance(100);
    }

    expect(server.sockets.length).toBeLessThan(10);
  });

  test("gives up a hanging handshake when the network is back", async () => {
    server.handshakes = "ignore";
    const { connection } = create();
    connection.connect();
    await advance(5_000);
    server.handshakes = "accept";

    windowEvents.dispatchEvent(new Event("online"));
    await advance(50);

    expect(connection.status.state).toBe("connected");
    expect(server.openSockets).toHaveLength(1);
  });

  test("retries in a hidden tab when the network is back, but not on focus", async () => {
    vi.stubGlobal("document", Object.assign(new EventTarget(), { visibilityState: "hidden" }));
    server.handshakes = "refuse";
    const { connection } = create();
    connection.connect();
    await advance(3 * MINUTE);
    await advance((connection.status.retryAt ?? 0) - Date.now() - 5_000);
    const before = server.sockets.length;

    windowEvents.dispatchEvent(new Event("focus"));
    await advance(50);
    expect(server.sockets).toHaveLength(before);
    windowEvents.dispatchEvent(new Event("online"));
    await advance(50);

    expect(server.sockets).toHaveLength(before + 1);
  });

  test("retries when the WebSocket constructor throws, and does not report its error", async () => {
    vi.stubGlobal(
      "WebSocket",
      class {
        constructor() {
          throw new SyntaxError("The subprotocol 'idToken.SECRET' is invalid.");
        }
      },
    );
    const { connection } = create({ credential: "subprotocol" });
    connection.connect();

    await advance(50);

    expect(connection.status).toMatchObject({ state: "disconnected", reason: { kind: "not_opened" } });
    expect(JSON.stringify(connection.status)).not.toContain("SECRET");
  });

  test("reports the close code and the close reason of a lost connection", async () => {
    const { connection } = await createConnected();

    server.last.drop(1001, "Going away");

    expect(connection.status.reason).toEqual({ kind: "lost", code: 1001, text: "Going away" });
  });
});

describe("tokens", () => {
  test("refreshes a new token once, before the attempt that follows its refusal", async () => {
    server.handshakes = "refuse";
    const { connection, session } = create();
    connection.connect();
    await advance(50);
    const refused = session.token;

    connection.retryNow();
    await advance(50);
    expect(session.refreshes).toBe(1);
    expect(server.last.url).not.toContain(refused);
    await advance(10 * MINUTE);

    expect(connection.status.state).toBe("suspended");
    expect(session.refreshes).toBe(1);
  });

  test("refreshes a token that was accepted before once, when the connection is suspended", async () => {
    const { connection, session, statuses } = await createConnected();
    await advance(MINUTE);
    server.handshakes = "refuse";
    server.last.drop(1006);
    while (connection.status.state !== "suspended") {
      expect(session.refreshes).toBe(0);
      await advance(1_000);
    }

    await advance(10 * MINUTE);

    expect(statuses.at(-1)?.state).toBe("suspended");
    expect(session.refreshes).toBe(1);
  });

  test("keeps using a valid token when Cognito throttles its refresh", async () => {
    server.handshakes = "refuse";
    const { connection, session } = create();
    session.refreshError = new Error("TooManyRequestsException");
    connection.connect();
    await advance(10_000);
    expect(session.refreshes).toBe(1);

    server.handshakes = "accept";
    await advance(30_000);

    expect(connection.status.state).toBe("connected");
  });

  test("fails without a retry when the session has ended", async () => {
    const { connection, session } = create();
    session.error = new SessionEnded();
    connection.connect();

    await advance(HOUR);

    expect(connection.status).toMatchObject({ state: "failed", reason: { kind: "session_ended" } });
    expect(server.sockets).toHaveLength(0);
  });

  test("retries while no token is available", async () => {
    const { connection, session } = create();
    session.error = new Error("NetworkError");
    connection.connect();
    await advance(1_500);
    expect(connection.status).toMatchObject({ reason: { kind: "token_unavailable", error: session.error } });

    session.error = undefined;
    await advance(10_000);

    expect(connection.status.state).toBe("connected");
  });

  test("connects again when connect() is called after a new sign-in", async () => {
    const { connection, session } = create();
    session.error = new SessionEnded();
    connection.connect();
    await advance(100);
    session.error = undefined;

    connection.connect();
    await advance(100);

    expect(connection.status.state).toBe("connected");
  });

  test("gets a new token after token_expired, even if this clock is slow", async () => {
    const session = new Session();
    session.token = makeToken(3600, Date.now() - HOUR + 30 * MINUTE); // by this clock valid for half an hour
    const { connection, received } = await createConnected({}, session);
    const frame = { error: "token_expired", message: "Your token has expired." };

    server.last.deliver(JSON.stringify(frame));
    server.last.drop(1000);
    expect(connection.status.reason).toEqual({ kind: "token_expired" });
    await advance(5_000);

    expect(connection.status.state).toBe("connected");
    expect(session.refreshes).toBe(1);
    expect(received).toEqual([{ kind: "error", code: "token_expired", text: frame.message }]);
  });

  test("ends the socket two seconds after token_expired if the server does not close it", async () => {
    const { connection } = await createConnected();

    server.last.deliver('{"error": "token_expired", "message": "Your token has expired."}');
    await advance(2_100);

    expect(connection.status.reason).toEqual({ kind: "token_expired" });
  });

  test("stays connected if this clock is months slow", async () => {
    const session = new Session();
    session.token = makeToken(3600, Date.now() + 60 * 24 * HOUR);

    const { connection } = await createConnected({}, session);
    await advance(30 * MINUTE);

    expect(connection.status.state).toBe("connected");
    expect(server.sockets).toHaveLength(1);
    expect(session.refreshes).toBe(0);
  });

  test("refreshes once and stays connected if this clock is hours fast", async () => {
    const session = new Session();
    session.token = makeToken(3600, Date.now() - 5 * HOUR);
    const getToken = session.getIdToken;
    const getIdToken = async (options: { forceRefresh: boolean }) => {
      await getToken(options);
      if (options.forceRefresh) session.token = makeToken(3600, Date.now() - 5 * HOUR);
      return session.token;
    };
    const { connection } = await createConnected({ getIdToken }, session);

    await advance(30 * MINUTE);

    expect(connection.status.state).toBe("connected");
    expect(session.refreshes).toBe(1);
    expect(server.sockets).toHaveLength(1);
  });
});

describe("replacement", () => {
  test("opens a socket with a new token before the old token expires, then closes the old socket", async () => {
    const { connection, session, states } = await createConnected();
    const [old] = server.sockets;

    await advance(HOUR - 2 * MINUTE);
    expect(server.sockets).toHaveLength(2);
    expect(session.refreshes).toBe(1);
    expect(server.last.url).toContain(session.token);
    await advance(10_000);

    expect(old?.readyState).toBe(3);
    expect(server.openSockets).toHaveLength(1);
    expect(connection.status.state).toBe("connected");
    expect(states()).not.toContain("disconnected");
  });

  test("opens before the two-hour limit if the token lives longer", async () => {
    const session = new Session();
    session.token = makeToken(24 * 3600);
    await createConnected({}, session);

    await advance(2 * HOUR - MINUTE);

    expect(server.sockets).toHaveLength(2);
    expect(session.refreshes).toBe(0);
  });

  test("gets new messages, while echoes are accepted from both sockets", async () => {
    const { connection, sent } = await createConnected();
    server.latency = 2_000;
    await advance(HOUR - 2.25 * MINUTE - 1_000);
    connection.send("to the old");
    await advance(2_900);
    const [old, young] = server.sockets;
    expect(server.openSockets).toEqual([old, young]);

    connection.send("to the new");
    await advance(2_500);

    expect([old?.received, young?.received]).toEqual([["to the old"], ["to the new"]]);
    expect(sent()).toEqual(["to the old echoed", "to the new echoed"]);
  });

  test("does not end the old socket if it is refused", async () => {
    server.maxSockets = 1;
    const { connection, states } = await createConnected();

    await advance(HOUR - MINUTE);
    expect(connection.status.state).toBe("connected");
    expect(server.sockets).toHaveLength(2);
    expect(states()).toEqual(["connecting", "connected"]);
    await advance(2 * MINUTE);

    expect(connection.status.state).toBe("connected");
    expect(states()).toEqual(["connecting", "connected", "disconnected", "connecting", "connected"]);
  });

  test("fails the connection if the session has ended", async () => {
    const { connection, session } = await createConnected();
    session.refreshError = new SessionEnded();

    await advance(HOUR - 2 * MINUTE);

    expect(connection.status.state).toBe("failed");
    await advance(100);
    expect(server.openSockets).toHaveLength(0);
  });

  test("is used when the old socket is lost before it opens", async () => {
    const { connection, states } = await createConnected();
    server.latency = 3_000;
    await advance(HOUR - 2.25 * MINUTE);
    expect(server.sockets).toHaveLength(2);

    server.sockets[0]?.drop(1006);
    expect(connection.status).toMatchObject({ state: "connecting", reason: { kind: "lost", code: 1006 } });
    await advance(3_000);

    expect(states()).toEqual(["connecting", "connected", "connecting", "connected"]);
    expect(server.sockets).toHaveLength(2);
  });
});

describe("keep-alive", () => {
  test("is sent before the default idle limit", async () => {
    await createConnected();

    await advance(9 * MINUTE);
    expect(server.countKeepAlives()).toBe(1);
    await advance(8 * MINUTE);

    expect(server.countKeepAlives()).toBe(2);
  });

  test("is sent before a shorter idle limit", async () => {
    await createConnected({ idleLimitSeconds: 10 });

    await advance(9_000);

    expect(server.countKeepAlives()).toBe(1);
  });

  test("is not sent while messages flow", async () => {
    const { connection } = await createConnected();

    for (let minute = 0; minute < 30; minute += 1) {
      connection.send("hello");
      await advance(MINUTE);
    }

    expect(server.countKeepAlives()).toBe(0);
  });

  test("is answered without a call of onReceived", async () => {
    const { received } = await createConnected();

    await advance(9 * MINUTE);

    expect(received).toEqual([]);
  });

  test("ends a socket that does not answer, and reconnects", async () => {
    const { connection, statuses } = await createConnected();
    server.isReachable = false;
    await advance(8 * MINUTE + 10_500);
    expect(statuses.find((status) => status.reason)?.reason).toEqual({ kind: "no_answer" });

    server.isReachable = true;
    await advance(MINUTE);

    expect(connection.status.state).toBe("connected");
  });

  test("detects a dead socket even if the interval is shorter than the wait for an answer", async () => {
    const { connection } = await createConnected({ idleLimitSeconds: 6 });
    server.isReachable = false;

    await advance(0.8 * 6_000 + 10_500);

    expect(connection.status.reason).toEqual({ kind: "no_answer" });
  });

  test("is sent after a message without an answer, before the socket is ended", async () => {
    const { connection, sent } = await createConnected();
    server.isReachable = false;
    connection.send("lost");

    await advance(10_500);
    expect(server.countKeepAlives()).toBe(1);
    await advance(10_000);

    expect(connection.status.reason).toEqual({ kind: "no_answer" });
    expect(sent()).toEqual(["lost unconfirmed"]);
  });

  test("detects a dead socket even if the user keeps sending", async () => {
    const { connection, states } = await createConnected();
    server.isReachable = false;

    for (let second = 0; second < 30; second += 5) {
      connection.send("anybody there?");
      await advance(5_000);
    }

    expect(states()).toContain("disconnected");
  });

  test("is sent when the tab gets focus after 30 s without a frame", async () => {
    await createConnected();
    windowEvents.dispatchEvent(new Event("focus"));
    expect(server.countKeepAlives()).toBe(0);
    await advance(31_000);

    windowEvents.dispatchEvent(new Event("focus"));

    expect(server.countKeepAlives()).toBe(1);
  });
});

describe("messages", () => {
  test("are sent at once while connected, and confirmed by their echo", async () => {
    const { connection, message } = await createConnected();

    connection.send("hello");
    expect(message(1)).toMatchObject({ text: "hello", state: "sent", sentAt: Date.now() });
    await advance(50);

    expect(message(1)).toMatchObject({ state: "echoed", roundTripMs: 10 });
  });

  test("are queued while there is no connection, then sent once and in order", async () => {
    const { connection, sent } = create();
    connection.send("one");
    connection.connect();
    connection.send("two");
    expect(sent()).toEqual(["one queued", "two queued"]);

    await advance(100);
    connection.send("three");
    await advance(100);

    expect(server.texts).toEqual(["one", "two", "three"]);
    expect(sent()).toEqual(["one echoed", "two echoed", "three echoed"]);
  });

  test("keep their order when one is sent in the callback of another", async () => {
    const order: string[] = [];
    const connection: Connection = new Connection({
      endpoint: "wss://example.test/prod",
      credential: "querystring",
      getIdToken: async () => makeToken(3600),
      onSent: ({ text, state }) => {
        if (text === "one" && state === "sent") connection.send("three");
        order.push(`${text} ${state}`);
      },
    });
    connection.send("one");
    connection.send("two");
    connection.connect();

    await advance(100);

    expect(server.texts).toEqual(["one", "two", "three"]);
  });

  test("have the id that send() returned", async () => {
    const { connection, message } = await createConnected();

    expect(message(connection.send("hello"))).toMatchObject({ text: "hello" });
  });

  test("that the callback sends again when they are unconfirmed get their echo", async () => {
    const echoed: string[] = [];
    const connection: Connection = new Connection({
      endpoint: "wss://example.test/prod",
      credential: "querystring",
      getIdToken: async () => makeToken(3600),
      onSent: ({ text, state }) => {
        if (state === "unconfirmed") connection.send(`${text} again`);
        if (state === "echoed") echoed.push(text);
      },
    });
    connection.connect();
    await advance(100);
    server.answers = false;
    connection.send("hello");
    server.last.drop(1006);
    server.answers = true;

    await advance(10_000);
    expect(server.texts).toEqual(["hello", "hello again"]);
    expect(echoed).toEqual(["hello again"]);
    void connection.close();
    await advance(5_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("wait in the queue while the server closes the socket", async () => {
    const { connection, sent } = await createConnected();
    server.last.readyState = 2;

    connection.send("hello");
    expect(sent()).toEqual(["hello queued"]);
    server.last.drop(1001);
    await advance(10_000);

    expect(sent()).toEqual(["hello echoed"]);
  });

  test("are reported as unconfirmed once", async () => {
    const reports: string[] = [];
    const { connection } = await createConnected({ onSent: ({ state }) => reports.push(state) });
    server.answers = false;
    connection.send("hello");
    for (let count = 0; count < 7; count += 1) {
      await advance(5_000);
      server.last.deliver("a push keeps the socket alive");
    }

    server.last.drop(1006);

    expect(reports).toEqual(["sent", "unconfirmed"]);
  });

  test("too large for API Gateway: the largest is marked as refused", async () => {
    const { connection, sent } = await createConnected();
    server.answers = false;
    connection.send("small");
    connection.send("large large");

    server.last.drop(1009);

    expect(sent()).toEqual(["small unconfirmed", "large large refused"]);
  });

  test.each(["\ufeffbyte order mark", "\u0000"])("%j matches its echo", async (text) => {
    const { connection, message } = await createConnected();

    connection.send(text);
    await advance(50);

    expect(message(1)).toMatchObject({ text, state: "echoed" });
  });

  test("throw QueueFull if too many are queued", () => {
    const { connection } = create();
    for (let count = 0; count < QUEUE_LIMIT; count += 1) connection.send("x");

    expect(() => connection.send("one too many")).toThrow(QueueFull);
  });

  test("are unconfirmed and not sent again if the socket ends before their echo", async () => {
    const { connection, sent } = await createConnected();
    server.answers = false;
    connection.send("hello");
    server.last.drop(1006);
    expect(sent()).toEqual(["hello unconfirmed"]);

    server.answers = true;
    await advance(MINUTE);

    expect(connection.status.state).toBe("connected");
    expect(server.texts).toEqual(["hello"]);
    expect(sent()).toEqual(["hello unconfirmed"]);
  });

  test("are unconfirmed after 30 s without an echo, and echoed if it comes later", async () => {
    const { connection, sent } = await createConnected();
    server.answers = false;
    connection.send("slow");
    await advance(5_000);
    for (let count = 0; count < 6; count += 1) {
      server.last.deliver("a push keeps the socket alive");
      await advance(5_000);
    }
    expect(sent()).toEqual(["slow unconfirmed"]);

    server.last.deliver('{"message": "slow"}');

    expect(sent()).toEqual(["slow echoed"]);
  });

  test("of the same text are confirmed oldest first", async () => {
    const { connection, message } = await createConnected();
    server.answers = false;
    connection.send("hi");
    connection.send("hi");

    server.last.deliver('{"message": "hi"}');

    expect([message(1)?.state, message(2)?.state]).toEqual(["echoed", "sent"]);
  });

  test("with a lone surrogate match their echo", async () => {
    const { connection, message } = await createConnected();

    connection.send("\ud83d");
    await advance(50);

    expect(message(1)).toMatchObject({ text: "\ufffd", state: "echoed" });
  });

  test("too large for the server: the largest is marked as refused", async () => {
    const { connection, sent, received } = await createConnected();
    server.answers = false;
    connection.send("small");
    connection.send("large large");
    connection.send("tiny");
    const frame = { error: "message_too_large", message: "This message is larger than the limit." };

    server.last.deliver(JSON.stringify(frame));

    expect(sent()).toEqual(["small sent", "large large refused", "tiny sent"]);
    expect(received).toEqual([{ kind: "error", code: "message_too_large", text: frame.message }]);
  });

  test("of the server go to onReceived: pushes, unknown echoes and API Gateway's error frames", async () => {
    const { received } = await createConnected();

    server.last.deliver("news");
    server.last.deliver('{"message": "nobody sent this"}');
    server.last.deliver('{"message": "Forbidden", "connectionId": "abc=", "requestId": "def="}');

    expect(received).toEqual([
      { kind: "push", text: "news" },
      { kind: "echo", text: "nobody sent this" },
      { kind: "error", code: "api_gateway", text: "Forbidden", requestId: "def=" },
    ]);
  });
});

test("a callback's error is reported and does not stop the connection", async () => {
  const reported: (() => void)[] = [];
  vi.stubGlobal("queueMicrotask", (report: () => void) => reported.push(report));
  const fail = () => {
    throw new Error("a fault of the page");
  };
  const connection = new Connection({
    endpoint: "wss://example.test/prod",
    credential: "querystring",
    getIdToken: async () => makeToken(3600),
    onStatus: fail,
    onSent: fail,
    onReceived: fail,
  });
  connection.connect();
  connection.send("hello");
  await advance(100);
  server.last.deliver("news");

  expect(connection.status.state).toBe("connected");
  expect(server.texts).toEqual(["hello"]);
  await Promise.all([connection.close(), advance(100)]);
  expect(connection.status.state).toBe("closed");
  expect(reported.length).toBeGreaterThan(5);
  expect(reported[0]).toThrow("a fault of the page");
});

describe("closing", () => {
  test("goes through closing to closed and leaves no socket, timer or listener behind", async () => {
    const { connection, states } = await createConnected();

    const closed = connection.close();
    expect(connection.status.state).toBe("closing");
    await advance(100);
    await closed;

    expect(states()).toEqual(["connecting", "connected", "closing", "closed"]);
    expect(server.last.readyState).toBe(3);
    expect(vi.getTimerCount()).toBe(0);
    windowEvents.dispatchEvent(new Event("online"));
    await advance(HOUR);
    expect(server.sockets).toHaveLength(1);
  });

  test("waits at most two seconds for the server", async () => {
    const { connection } = await createConnected();
    server.isReachable = false;

    void connection.close();
    await advance(2_100);

    expect(connection.status.state).toBe("closed");
  });

  test("resolves a second close() with the first one, and delays connect() until then", async () => {
    const { connection, states } = await createConnected();

    const first = connection.close();
    const second = connection.close();
    connection.connect();
    await advance(100);
    await Promise.all([first, second]);
    await advance(100);

    expect(states()).toEqual(["connecting", "connected", "closing", "closed", "connecting", "connected"]);
  });

  test("refuses a message that the callback of a discarded message sends", async () => {
    server.handshakes = "refuse";
    const errors: unknown[] = [];
    const connection: Connection = new Connection({
      endpoint: "wss://example.test/prod",
      credential: "querystring",
      getIdToken: async () => makeToken(3600),
      onSent: ({ state }) => {
        try {
          if (state === "discarded") connection.send("again");
        } catch (error) {
          errors.push(error);
        }
      },
    });
    connection.connect();
    connection.send("too late");

    await connection.close();

    expect(errors).toEqual([new Error("the connection is closing: call connect() first")]);
  });

  test("opens no socket if a token was being fetched", async () => {
    const { connection } = create();
    connection.connect();

    void connection.close();
    await advance(HOUR);

    expect(connection.status.state).toBe("closed");
    expect(server.sockets).toHaveLength(0);
  });

  test("cancels the next attempt", async () => {
    server.handshakes = "refuse";
    const { connection } = create();
    connection.connect();
    await advance(50);

    void connection.close();
    await advance(HOUR);

    expect(server.sockets).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("discards queued messages and refuses new ones", async () => {
    const { connection, sent } = create();
    server.handshakes = "refuse";
    connection.connect();
    connection.send("too late");

    await connection.close();

    expect(sent()).toEqual(["too late discarded"]);
    expect(() => connection.send("more")).toThrow("the connection is closed: call connect() first");
  });
});
