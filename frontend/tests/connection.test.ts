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

/** Cognito as the connection sees it: keeps a token and refreshes it on demand. */
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

  test("a second connect() opens no second socket", async () => {
    const { connection } = await createConnected();

    connection.connect();
    await advance(MINUTE);

    expect(server.sockets).toHaveLength(1);
  });

  test("a socket that gets no answer is given up after 30 s", async () => {
    server.admits = "silence";
    const { connection } = create();
    connection.connect();

    await advance(29_000);
    expect(connection.status.state).toBe("connecting");
    await advance(1_500);

    expect(connection.status).toMatchObject({ state: "disconnected", reason: { kind: "not_opened" } });
  });

  test("a token that does not come is given up after 30 s", async () => {
    const { connection } = create({ getIdToken: () => new Promise(() => {}) });
    connection.connect();

    await advance(30_500);

    expect(connection.status.reason).toMatchObject({ kind: "token_unavailable" });
  });
});

describe("retrying", () => {
  test("is disconnected after each failure, and suspended after several in a row", async () => {
    server.admits = "nobody";
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

  test("tells when the next attempt starts", async () => {
    server.admits = "nobody";
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

  test("suspended keeps trying about every 30 s and connects when it can", async () => {
    server.admits = "nobody";
    const { connection } = create();
    connection.connect();
    await advance(2 * MINUTE);
    const before = server.sockets.length;
    await advance(10 * MINUTE);
    expect(server.sockets.length - before).toBe(20);

    server.admits = "all";
    await advance(31_000);

    expect(connection.status.state).toBe("connected");
  });

  test("a stable connection resets the backoff", async () => {
    server.admits = "nobody";
    const { connection } = create();
    connection.connect();
    await advance(10_000);
    server.admits = "all";
    await advance(30_000);
    expect(connection.status.state).toBe("connected");

    server.last.drop(1006);

    expect(connection.status).toMatchObject({ state: "disconnected", failures: 0 });
  });

  test("a server that hangs up at once is not retried without delay", async () => {
    const { connection } = create();
    connection.connect();
    const hangUp = setInterval(() => {
      for (const socket of server.open) socket.drop(1006);
    }, 100);

    await advance(5 * MINUTE);
    clearInterval(hangUp);

    expect(connection.status.state).toMatch(/suspended|connect/);
    expect(server.sockets.length).toBeLessThan(20);
  });

  test.each([
    ["asked to", (connection: Connection) => connection.retryNow()],
    ["the network is back", () => windowEvents.dispatchEvent(new Event("online"))],
    ["the tab gets focus", () => windowEvents.dispatchEvent(new Event("focus"))],
  ])("retries at once when %s", async (_, cause) => {
    server.admits = "nobody";
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

  test("a tab that gets focus again and again does not retry again and again", async () => {
    server.admits = "nobody";
    const { connection } = create();
    connection.connect();

    for (let count = 0; count < 100; count += 1) {
      windowEvents.dispatchEvent(new Event("focus"));
      await advance(100);
    }

    expect(server.sockets.length).toBeLessThan(10);
  });

  test("a handshake that hangs is given up when the network is back", async () => {
    server.admits = "silence";
    const { connection } = create();
    connection.connect();
    await advance(5_000);
    server.admits = "all";

    windowEvents.dispatchEvent(new Event("online"));
    await advance(50);

    expect(connection.status.state).toBe("connected");
    expect(server.open).toHaveLength(1);
  });

  test("a hidden tab also retries when the network is back", async () => {
    vi.stubGlobal("document", Object.assign(new EventTarget(), { visibilityState: "hidden" }));
    server.admits = "nobody";
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

  test("an address or token that no socket takes is retried, and its error is not passed on", async () => {
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

  test("names the close code and the close reason of a lost connection", async () => {
    const { connection } = await createConnected();

    server.last.drop(1001, "Going away");

    expect(connection.status.reason).toEqual({ kind: "lost", code: 1001, text: "Going away" });
  });
});

describe("tokens", () => {
  test("a new token that was refused is refreshed before the next attempt, and only once", async () => {
    server.admits = "nobody";
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

  test("a token that was accepted before is refreshed when the connection is suspended, and only once", async () => {
    const { connection, session, statuses } = await createConnected();
    await advance(MINUTE);
    server.admits = "nobody";
    server.last.drop(1006);
    while (connection.status.state !== "suspended") {
      expect(session.refreshes).toBe(0);
      await advance(1_000);
    }

    await advance(10 * MINUTE);

    expect(statuses.at(-1)?.state).toBe("suspended");
    expect(session.refreshes).toBe(1);
  });

  test("a refresh that Cognito throttles does not stop a token that is still good", async () => {
    server.admits = "nobody";
    const { connection, session } = create();
    session.refreshError = new Error("TooManyRequestsException");
    connection.connect();
    await advance(10_000);
    expect(session.refreshes).toBe(1);

    server.admits = "all";
    await advance(30_000);

    expect(connection.status.state).toBe("connected");
  });

  test("fails, for good, when the session has ended", async () => {
    const { connection, session } = create();
    session.error = new SessionEnded();
    connection.connect();

    await advance(HOUR);

    expect(connection.status).toMatchObject({ state: "failed", reason: { kind: "session_ended" } });
    expect(server.sockets).toHaveLength(0);
  });

  test("keeps trying when the token cannot be had for now", async () => {
    const { connection, session } = create();
    session.error = new Error("NetworkError");
    connection.connect();
    await advance(1_500);
    expect(connection.status).toMatchObject({ reason: { kind: "token_unavailable", error: session.error } });

    session.error = undefined;
    await advance(10_000);

    expect(connection.status.state).toBe("connected");
  });

  test("connects again after failed when the user has signed in", async () => {
    const { connection, session } = create();
    session.error = new SessionEnded();
    connection.connect();
    await advance(100);
    session.error = undefined;

    connection.connect();
    await advance(100);

    expect(connection.status.state).toBe("connected");
  });

  test("token_expired from the server leads to a new token, also where this clock is slow", async () => {
    const session = new Session();
    session.token = makeToken(3600, Date.now() - HOUR + 30 * MINUTE); // by this clock good for half an hour
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

  test("token_expired without a close ends the socket after two seconds", async () => {
    const { connection } = await createConnected();

    server.last.deliver('{"error": "token_expired", "message": "Your token has expired."}');
    await advance(2_100);

    expect(connection.status.reason).toEqual({ kind: "token_expired" });
  });

  test("a clock that is months behind stays connected", async () => {
    const session = new Session();
    session.token = makeToken(3600, Date.now() + 60 * 24 * HOUR);

    const { connection } = await createConnected({}, session);
    await advance(30 * MINUTE);

    expect(connection.status.state).toBe("connected");
    expect(server.sockets).toHaveLength(1);
    expect(session.refreshes).toBe(0);
  });

  test("a clock that is hours ahead refreshes once and then stays connected", async () => {
    const session = new Session();
    session.token = makeToken(3600, Date.now() - 5 * HOUR);
    const behind = session.getIdToken;
    const getIdToken = async (options: { forceRefresh: boolean }) => {
      await behind(options);
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
  test("a new socket with a new token is open before the token expires, and the old one is closed after", async () => {
    const { connection, session, states } = await createConnected();
    const [old] = server.sockets;

    await advance(HOUR - 2 * MINUTE);
    expect(server.sockets).toHaveLength(2);
    expect(session.refreshes).toBe(1);
    expect(server.last.url).toContain(session.token);
    await advance(10_000);

    expect(old?.readyState).toBe(3);
    expect(server.open).toHaveLength(1);
    expect(connection.status.state).toBe("connected");
    expect(states()).not.toContain("disconnected");
  });

  test("comes before the two-hour limit when the token lives longer", async () => {
    const session = new Session();
    session.token = makeToken(24 * 3600);
    await createConnected({}, session);

    await advance(2 * HOUR - MINUTE);

    expect(server.sockets).toHaveLength(2);
    expect(session.refreshes).toBe(0);
  });

  test("messages go to the new socket, echoes are taken from both", async () => {
    const { connection, sent } = await createConnected();
    server.latency = 2_000;
    await advance(HOUR - 2.25 * MINUTE - 1_000);
    connection.send("to the old");
    await advance(2_900);
    const [old, young] = server.sockets;
    expect(server.open).toEqual([old, young]);

    connection.send("to the new");
    await advance(2_500);

    expect([old?.received, young?.received]).toEqual([["to the old"], ["to the new"]]);
    expect(sent()).toEqual(["to the old echoed", "to the new echoed"]);
  });

  test("a refused replacement leaves the old socket to its end", async () => {
    server.cap = 1;
    const { connection, states } = await createConnected();

    await advance(HOUR - MINUTE);
    expect(connection.status.state).toBe("connected");
    expect(server.sockets).toHaveLength(2);
    expect(states()).toEqual(["connecting", "connected"]);
    await advance(2 * MINUTE);

    expect(connection.status.state).toBe("connected");
    expect(states()).toEqual(["connecting", "connected", "disconnected", "connecting", "connected"]);
  });

  test("a session that has ended fails at the next renewal", async () => {
    const { connection, session } = await createConnected();
    session.refreshError = new SessionEnded();

    await advance(HOUR - 2 * MINUTE);

    expect(connection.status.state).toBe("failed");
    await advance(100);
    expect(server.open).toHaveLength(0);
  });

  test("takes over when the old socket is lost meanwhile", async () => {
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
  test("passes the idle limit with the default settings", async () => {
    await createConnected();

    await advance(9 * MINUTE);
    expect(server.keepAlives()).toBe(1);
    await advance(8 * MINUTE);

    expect(server.keepAlives()).toBe(2);
  });

  test("follows a compressed idle limit", async () => {
    await createConnected({ idleLimitSeconds: 10 });

    await advance(9_000);

    expect(server.keepAlives()).toBe(1);
  });

  test("is not sent while messages flow", async () => {
    const { connection } = await createConnected();

    for (let minute = 0; minute < 30; minute += 1) {
      connection.send("hello");
      await advance(MINUTE);
    }

    expect(server.keepAlives()).toBe(0);
  });

  test("its answer is not passed on", async () => {
    const { received } = await createConnected();

    await advance(9 * MINUTE);

    expect(received).toEqual([]);
  });

  test("without an answer the socket is dead and replaced", async () => {
    const { connection, statuses } = await createConnected();
    server.isReachable = false;
    await advance(8 * MINUTE + 10_500);
    expect(statuses.find((status) => status.reason)?.reason).toEqual({ kind: "no_answer" });

    server.isReachable = true;
    await advance(MINUTE);

    expect(connection.status.state).toBe("connected");
  });

  test("finds a dead socket also when keep-alives are sent more often than an answer is waited for", async () => {
    const { connection } = await createConnected({ idleLimitSeconds: 6 });
    server.isReachable = false;

    await advance(0.8 * 6_000 + 10_500);

    expect(connection.status.reason).toEqual({ kind: "no_answer" });
  });

  test("a message without any answer leads to a keep-alive, then to a new socket", async () => {
    const { connection, sent } = await createConnected();
    server.isReachable = false;
    connection.send("lost");

    await advance(10_500);
    expect(server.keepAlives()).toBe(1);
    await advance(10_000);

    expect(connection.status.reason).toEqual({ kind: "no_answer" });
    expect(sent()).toEqual(["lost unconfirmed"]);
  });

  test("a user who keeps sending on a dead socket does not keep it", async () => {
    const { connection, states } = await createConnected();
    server.isReachable = false;

    for (let second = 0; second < 30; second += 5) {
      connection.send("anybody there?");
      await advance(5_000);
    }

    expect(states()).toContain("disconnected");
  });

  test("a tab that gets focus after a quiet time asks whether the socket is alive", async () => {
    await createConnected();
    windowEvents.dispatchEvent(new Event("focus"));
    expect(server.keepAlives()).toBe(0);
    await advance(31_000);

    windowEvents.dispatchEvent(new Event("focus"));

    expect(server.keepAlives()).toBe(1);
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

  test("that are sent again when they are unconfirmed are queued and get their echo", async () => {
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

  test("too large for API Gateway: the largest one is marked as refused", async () => {
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

  test("the queue is bounded", () => {
    const { connection } = create();
    for (let count = 0; count < QUEUE_LIMIT; count += 1) connection.send("x");

    expect(() => connection.send("one too many")).toThrow(QueueFull);
  });

  test("without an echo when the socket ends are unconfirmed and not sent again", async () => {
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

  test("without an echo after 30 s are unconfirmed, until the echo comes after all", async () => {
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

  test("too large for the server: the largest one is marked as refused", async () => {
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

  test("pushes, unknown echoes and API Gateway's error frames are passed on", async () => {
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

test("a callback that throws is reported and does not stop the connection", async () => {
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

  test("does not wait longer than two seconds for the server", async () => {
    const { connection } = await createConnected();
    server.isReachable = false;

    void connection.close();
    await advance(2_100);

    expect(connection.status.state).toBe("closed");
  });

  test("a second close() resolves with the first, and connect() waits for both", async () => {
    const { connection, states } = await createConnected();

    const first = connection.close();
    const second = connection.close();
    connection.connect();
    await advance(100);
    await Promise.all([first, second]);
    await advance(100);

    expect(states()).toEqual(["connecting", "connected", "closing", "closed", "connecting", "connected"]);
  });

  test("a message sent in the callback of a discarded one is refused", async () => {
    server.admits = "nobody";
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

  test("while a token is being fetched opens no socket", async () => {
    const { connection } = create();
    connection.connect();

    void connection.close();
    await advance(HOUR);

    expect(connection.status.state).toBe("closed");
    expect(server.sockets).toHaveLength(0);
  });

  test("while it waits for the next attempt ends the attempts", async () => {
    server.admits = "nobody";
    const { connection } = create();
    connection.connect();
    await advance(50);

    void connection.close();
    await advance(HOUR);

    expect(server.sockets).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("discards what is queued and refuses what comes after", async () => {
    const { connection, sent } = create();
    server.admits = "nobody";
    connection.connect();
    connection.send("too late");

    await connection.close();

    expect(sent()).toEqual(["too late discarded"]);
    expect(() => connection.send("more")).toThrow("the connection is closed: call connect() first");
  });
});
