/** Check a connection's promises for random sequences of events: of the network, the server, tokens and the user. */

import fc from "fast-check";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Connection, QueueFull, type SentMessage, type Status } from "../src/connection";
import { FakeServer, makeToken } from "./fake-server";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const anyEvent = fc.oneof(
  { weight: 6, arbitrary: fc.constant({ kind: "send" as const }) },
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("wait" as const), ms: fc.integer({ min: 1, max: 20_000 }) }) },
  { weight: 1, arbitrary: fc.constant({ kind: "wait" as const, ms: 50 * 60_000 }) },
  { weight: 2, arbitrary: fc.constant({ kind: "drop" as const }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("handshakes" as const),
      answer: fc.constantFrom("accept" as const, "refuse" as const, "ignore" as const),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("network" as const), isReachable: fc.boolean() }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("answers" as const), answers: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("latency" as const), ms: fc.integer({ min: 1, max: 25_000 }) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("maxSockets" as const), maxSockets: fc.constantFrom(1, 2, 10) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("tokens" as const), areServed: fc.boolean() }) },
  { weight: 2, arbitrary: fc.constantFrom({ kind: "retryNow" as const }, { kind: "online" as const }) },
);

test("every message is sent at most once and in order, and its outcome is reported", { timeout: 60_000 }, async () => {
  const property = fc.asyncProperty(fc.array(anyEvent, { maxLength: 60 }), async (events) => {
    vi.clearAllTimers();
    const server = new FakeServer();
    server.install();
    const windowEvents = new EventTarget();
    vi.stubGlobal("window", windowEvents);
    const outcomes = new Map<string, SentMessage["state"]>();
    const given: string[] = [];
    const statuses: Status[] = [];
    let areTokensServed = true;
    let token = makeToken(3600);
    let refreshes = 0;
    const connection = new Connection({
      endpoint: "wss://example.test/prod",
      credential: "querystring",
      getIdToken: async ({ forceRefresh }) => {
        if (!areTokensServed) throw new Error("NetworkError");
        if (forceRefresh) {
          refreshes += 1;
          token = makeToken(3600);
        }
        return token;
      },
      onStatus: (status) => statuses.push(status),
      onSent: ({ text, state }) => outcomes.set(text, state),
    });
    connection.connect();

    for (const event of events) {
      switch (event.kind) {
        case "send": {
          const text = `message ${given.length}`;
          try {
            connection.send(text);
            given.push(text);
          } catch (error) {
            expect(error).toBeInstanceOf(QueueFull);
          }
          break;
        }
        case "wait":
          await vi.advanceTimersByTimeAsync(event.ms);
          break;
        case "drop":
          server.openSockets.at(0)?.drop(1006);
          break;
        case "handshakes":
          server.handshakes = event.answer;
          break;
        case "network":
          server.isReachable = event.isReachable;
          break;
        case "answers":
          server.answers = event.answers;
          break;
        case "latency":
          server.latency = event.ms;
          break;
        case "maxSockets":
          server.maxSockets = event.maxSockets;
          break;
        case "tokens":
          areTokensServed = event.areServed;
          break;
        case "retryNow":
          connection.retryNow();
          break;
        case "online":
          windowEvents.dispatchEvent(new Event("online"));
          break;
      }
      const alive = server.sockets.filter((socket) => socket.readyState < 2);
      expect(alive.length).toBeLessThanOrEqual(3); // one in use, one that replaces it, one that is being drained
      expect(alive.filter((socket) => socket.readyState === 0).length).toBeLessThanOrEqual(1);
    }

    Object.assign(server, { handshakes: "accept", isReachable: true, answers: true, maxSockets: 10, latency: 10 });
    areTokensServed = true;
    await vi.advanceTimersByTimeAsync(3 * 60_000);

    expect(connection.status.state).toBe("connected");
    expect(server.texts).toEqual(given.filter((text) => server.texts.includes(text)));
    expect([...outcomes.keys()]).toEqual(given);
    for (const [text, outcome] of outcomes) {
      expect(["echoed", "unconfirmed"]).toContain(outcome);
      expect(server.texts).toContain(text);
    }
    const outages = statuses.filter(({ state }) => state === "connected").length + 1;
    expect(refreshes).toBeLessThanOrEqual(outages * 2);

    void connection.close();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(connection.status.state).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });
  await fc.assert(property, { numRuns: 300 });
});
