import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { makeTraceUrl, parseConnections, parseEntry } from "../src/inspector/api";
import { Journal, REFRESH_MS } from "../src/inspector/journal";
import { describeCount, describeState } from "../src/inspector/list-page";
import { chooseConnection, formatRoute, parseRoute } from "../src/inspector/route";
import { CONNECTION } from "./inspector-data";

/** A fake of the inspector's server: the answer for each URL, and the streams that were opened. */
class FakeServer {
  requests: string[] = [];
  answers = new Map<string, unknown>();
  streams: FakeEventSource[] = [];

  readonly fetch = async (url: string): Promise<Response> => {
    this.requests.push(url);
    const answer = this.answers.get(url);
    return answer === undefined ? new Response("", { status: 404 }) : Response.json(answer);
  };

  get stream(): FakeEventSource {
    const { length } = this.streams;
    return this.streams[length - 1] as FakeEventSource;
  }
}

class FakeEventSource extends EventTarget {
  isClosed = false;
  onopen: (() => void) | undefined;
  onerror: (() => void) | undefined;

  constructor(readonly url: string) {
    super();
    server.streams.push(this);
  }

  close(): void {
    this.isClosed = true;
  }

  send(...connections: unknown[]): void {
    this.dispatchEvent(new MessageEvent("connections", { data: JSON.stringify({ connections }) }));
  }
}

const ALL = "api/connections?search=";
const TIMELINE = `api/connections/${encodeURIComponent(CONNECTION)}`;

let server: FakeServer;
let journal: Journal;

beforeEach(() => {
  vi.useFakeTimers();
  server = new FakeServer();
  server.answers.set(ALL, { connections: [makeSummary("b"), makeSummary("a")], total: 2 });
  server.answers.set(TIMELINE, {
    id: CONNECTION,
    entries: [{ at: 1, kind: "message", keys: [CONNECTION], facts: {} }],
  });
  vi.stubGlobal("fetch", server.fetch);
  vi.stubGlobal("EventSource", FakeEventSource);
  journal = new Journal();
});

afterEach(() => {
  journal.stop();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function makeSummary(id: string, facts: object = {}) {
  return { id, userId: "u", openedAt: 1, endedAt: null, status: 101, cause: null, messages: 0, errors: 0, ...facts };
}

async function advance(milliseconds = 0) {
  await vi.advanceTimersByTimeAsync(milliseconds);
}

async function connect() {
  journal.start();
  server.stream.onopen?.();
  await advance();
}

function listIds() {
  return journal.getState().list.connections.map(({ id }) => id);
}

describe("the journal in the browser", () => {
  it("loads the list when the stream is open", async () => {
    expect(journal.getState().stream).toBe("connecting");
    await connect();

    expect(journal.getState()).toMatchObject({ stream: "live", list: { total: 2, search: "" } });
    expect(listIds()).toEqual(["b", "a"]);
  });

  it("changes a connection in place without a request", async () => {
    await connect();
    server.requests = [];
    server.stream.send(makeSummary("a", { messages: 3 }));
    await advance();

    expect(journal.getState().list.connections[1]).toMatchObject({ id: "a", messages: 3 });
    expect(server.requests).toEqual([]);
  });

  it("loads the list for unknown connections, but not more than once a second", async () => {
    await connect();
    server.requests = [];
    for (let n = 0; n < 50; n += 1) {
      server.stream.send(makeSummary(`new ${n}`));
      await advance(20);
    }
    await advance(2 * REFRESH_MS);

    expect(server.requests.length).toBeGreaterThanOrEqual(2);
    expect(server.requests.length).toBeLessThanOrEqual(3);
  });

  it("reports a lost stream, keeps the list, and reconnects by itself", async () => {
    await connect();
    server.stream.onerror?.();

    expect(journal.getState().stream).toBe("lost");
    expect(listIds()).toEqual(["b", "a"]);

    await advance(1000);
    server.stream.onerror?.();
    expect(server.streams).toHaveLength(2);
    await advance(1999);
    expect(server.streams).toHaveLength(2);
    await advance(1);
    expect(server.streams).toHaveLength(3);

    server.answers.set(ALL, { connections: [makeSummary("c")], total: 1 });
    server.stream.onopen?.();
    await advance();
    expect(journal.getState().stream).toBe("live");
    expect(listIds()).toEqual(["c"]);
  });

  it("does not reconnect while it is paused", async () => {
    await connect();
    journal.pause();
    await advance(60_000);

    expect(server.stream.isClosed).toBe(true);
    expect(server.streams).toHaveLength(1);
    journal.resume();
    server.stream.onopen?.();
    expect(journal.getState().stream).toBe("live");
  });

  it("shows the answer of the latest search only", async () => {
    const answers: ((answer: Response) => void)[] = [];
    vi.stubGlobal("fetch", () => new Promise((resolve) => answers.push(resolve)));
    journal.setSearch("first");
    journal.setSearch("second");
    answers[1]?.(Response.json({ connections: [makeSummary("2")], total: 1 }));
    await advance();
    answers[0]?.(Response.json({ connections: [makeSummary("1")], total: 1 }));
    await advance();

    expect(journal.getState().list).toMatchObject({ search: "second", connections: [{ id: "2" }] });
  });

  it("loads a timeline again when its connection has changed", async () => {
    await connect();
    journal.openTimeline(CONNECTION);
    await advance();
    expect(journal.getState().timeline).toMatchObject({ id: CONNECTION, entries: [{ kind: "message" }] });

    server.requests = [];
    server.stream.send(makeSummary(CONNECTION));
    await advance();
    expect(server.requests).toContain(TIMELINE);
  });

  it("keeps a timeline that a new local run does not know", async () => {
    await connect();
    journal.openTimeline(CONNECTION);
    await advance();
    server.answers.delete(TIMELINE);
    server.stream.onopen?.();
    await advance();

    expect(journal.getState().timeline).toMatchObject({ problem: "unknown", entries: [{ kind: "message" }] });
  });

  it("distinguishes a server without a journal from an unreachable server", async () => {
    server.answers.clear();
    journal.setSearch("");
    await advance();
    expect(journal.getState().list.problem).toBe("no journal");

    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
    journal.setSearch("x");
    await advance();
    expect(journal.getState().list.problem).toBe("unreachable");
  });
});

describe("a search", () => {
  it("opens the only match", async () => {
    server.answers.set("api/connections?search=u%201", { connections: [makeSummary("a")], total: 1 });

    expect(await journal.find("u 1")).toBe("a");
  });

  it("opens the connection with exactly this id, and none if several match", () => {
    const connections = parseConnections([makeSummary("a"), makeSummary("ab")]);

    expect(chooseConnection(" a ", { connections, total: 2 })).toBe("a");
    expect(chooseConnection("u", { connections, total: 2 })).toBeUndefined();
    expect(chooseConnection("u", { connections: connections.slice(0, 1), total: 300 })).toBeUndefined();
    expect(chooseConnection("u", { connections: [], total: 0 })).toBeUndefined();
  });

  it("opens nothing without an answer", async () => {
    expect(await journal.find("nowhere")).toBeUndefined();
  });
});

describe("the address", () => {
  it.each([CONNECTION, "a-_b=", "a/b?c#d %&", "<b>", "\u202e"])("of connection %s can be read again", (id) => {
    expect(parseRoute(formatRoute({ page: "connection", id }))).toEqual({ page: "connection", id });
  });

  it("of a connection contains its id unchanged", () => {
    expect(formatRoute({ page: "connection", id: CONNECTION })).toBe(`#/connections/${CONNECTION}`);
  });

  it.each(["", "a b", "1-6b0c212b-0", "a&b=c#d"])("of the search %j can be read again", (search) => {
    expect(parseRoute(formatRoute({ page: "list", search }))).toEqual({ page: "list", search });
  });

  it.each(["", "#", "#/", "#/connections/", "#nonsense"])("%j leads to the list", (hash) => {
    expect(parseRoute(hash)).toEqual({ page: "list", search: "" });
  });

  it("of a connection is used unchanged if it is malformed", () => {
    expect(parseRoute("#/connections/%E0%A4%A")).toEqual({ page: "connection", id: "%E0%A4%A" });
  });

  it("of a trace stays within its folder", () => {
    expect(makeTraceUrl("../../x?y")).toBe("api/traces/..%2F..%2Fx%3Fy");
  });
});

describe("an answer of another shape", () => {
  it("is read as no connections and no entries", () => {
    expect(parseConnections("none")).toEqual([]);
    expect(parseConnections([null, {}, { id: "" }])).toEqual([]);
    expect(parseEntry(null)).toEqual([]);
    expect(parseEntry({ at: "1", kind: "message" })).toEqual([]);
    expect(parseEntry({ at: 1, kind: "message", keys: [1, null, "a"] })).toEqual([
      { at: 1, kind: "message", keys: ["a"], facts: {} },
    ]);
  });
});

describe("the list", () => {
  it("says how many connections it leaves out", () => {
    const connections = parseConnections(Array.from({ length: 200 }, (_, n) => makeSummary(`${n}`)));
    const list = { connections, search: "", problem: undefined };

    expect(describeCount({ ...list, total: 3000 })).toBe("200 of 3,000: search to narrow");
    expect(describeCount({ ...list, total: 200 })).toBe("200");
    expect(describeCount({ ...list, total: 200, search: "u" })).toBe("200 found");
    expect(describeCount({ ...list, total: 0, search: undefined })).toBe("");
  });

  it.each([
    [{ status: 101 }, "101 live"],
    [{ status: 101, endedAt: 2 }, "101 ended"],
    [{ status: 403, endedAt: 2 }, "403 refused"],
    [{ status: null }, "Opening"],
    [{ status: null, endedAt: 2 }, "Ended"],
  ])("says of %j: %s", (facts, text) => {
    const [connection] = parseConnections([makeSummary("a", facts)]);

    expect(connection && describeState(connection).text).toBe(text);
  });
});
