import { describe, expect, it } from "vitest";
import type { Entry } from "../src/inspector/api";
import { findTraceId, nameIds } from "../src/inspector/ids";
import { buildTimeline, type Row, type Step, walk } from "../src/inspector/timeline";
import {
  acceptedHandshake,
  answeredMessage,
  CALLER,
  CONNECTION,
  ending,
  entry,
  ids,
  invocation,
  refusedHandshake,
  segment,
  USER,
} from "./inspector-data";

function build(...entries: Entry[]) {
  return buildTimeline(CONNECTION, entries);
}

/** Return the kinds of rows, with those within them. */
function outlineRows(rows: readonly Row[]): unknown[] {
  return rows.map(({ entry: { kind }, children }) => (children.length > 0 ? [kind, ...outlineRows(children)] : kind));
}

/** Return the key with a suffix for the n-th message, so that messages share no ids. */
function makeUnique(key: string, n: number): string {
  return key === CONNECTION ? key : `${key} ${n}`;
}

function listTitles(steps: readonly Step[]): string[] {
  return steps.map(({ title }) => title);
}

describe("a timeline", () => {
  it("joins a handshake with its invocations, log lines and the decision", () => {
    const { steps, openedAt } = build(...refusedHandshake());

    expect(listTitles(steps)).toEqual(["Handshake refused: 403"]);
    expect(outlineRows(steps[0]?.rows ?? [])).toEqual(["handshake", ["invocation", "log"], "decision"]);
    expect(openedAt).toBe(100);
  });

  it("joins a message with its invocation, and that with calls, frames and the trace", () => {
    const { steps } = build(...acceptedHandshake(), ...answeredMessage(3, 101));

    expect(listTitles(steps)).toEqual(["Handshake accepted: 101", "Message on route $default answered in 12 ms"]);
    expect(outlineRows(steps[1]?.rows ?? [])).toEqual([
      "message",
      ["invocation", "management", "frame", "call", "trace"],
    ]);
  });

  it("sorts the entries by time", () => {
    const entries = [
      ...acceptedHandshake(),
      ...answeredMessage(3, 101),
      ...answeredMessage(4, 102),
      ending(103, "client"),
    ];

    expect(build(...[...entries].reverse())).toEqual(build(...entries));
  });

  it("joins all documents of a trace", () => {
    const [, , trace] = ids(3);
    const documents = [segment(trace, 101), { ...segment(trace, 101.001), id: "b", parent_id: "a" }];
    const entries = documents.map((document) => ({ ...entry(102, "trace", [], document), keys: [trace] }));
    const [row] = [...walk(build(...entries).steps.flatMap(({ rows }) => rows))];

    expect(row?.documents).toEqual(documents);
    expect(row && findTraceId(row)).toBe(trace);
  });

  it("gives a log line to the invocation with the most ids in common", () => {
    const [request, lambda] = ids(1);
    const record = { level: "INFO", message: "accepted" };
    const { steps } = build(
      entry(100, "handshake", [request], {}),
      invocation(1, 100.001, 100.002, { purpose: "authorizer" }),
      { ...invocation(2, 100.003, 100.004, { purpose: "$connect" }), keys: [CONNECTION, request, ids(2)[1]] },
      entry(100.0015, "log", [request, lambda], { record }),
    );

    expect(outlineRows(steps[0]?.rows ?? [])).toEqual(["handshake", ["invocation", "log"], "invocation"]);
  });

  it("gives a call of @connections to no invocation if two could have made it", () => {
    const [first, second] = [ids(3), ids(4)];
    const { steps } = build(
      entry(101, "message", [first[0]], { routeKey: "$default" }),
      entry(101, "message", [second[0]], { routeKey: "$default" }),
      invocation(3, 101, 101.1, { purpose: "$default" }),
      invocation(4, 101, 101.1, { purpose: "$default" }),
      entry(101.05, "management", [], { method: "POST", status: 200, caller: CALLER }),
      entry(101.051, "frame", [], { body: "hello", from: "@connections" }),
    );

    expect(outlineRows(steps[2]?.rows ?? [])).toEqual(["management", "frame"]);
  });

  it("begins a step for an entry that belongs to no other", () => {
    const { steps } = build(
      entry(101, "frame", [], { body: "push", from: "@connections" }),
      { ...entry(102, "log", [], { record: "line" }), keys: ["unknown"] },
      entry(103, "decision", ["lost"], { status: 101 }),
    );

    expect(listTitles(steps)).toEqual(["Push to the client", "Log line", "Decision about the handshake"]);
  });

  it("says that a message failed, by the error frame or by the invocation's error", () => {
    const [request] = ids(5);
    const message = entry(101, "message", [request], { routeKey: "$default", body: "hello" });
    const frame = entry(101.1, "frame", [request], {
      body: '{"message": "Forbidden", "connectionId":"a", "requestId":"b"}',
      from: "gateway",
    });
    const failed = invocation(5, 101, 101.1, { purpose: "$default", error: "KeyError", message: "'userId'" });

    expect(listTitles(build(message, frame).steps)).toEqual(["Message on route $default failed: Forbidden"]);
    expect(listTitles(build(message, failed, frame).steps)).toEqual([
      "Message on route $default failed: KeyError: 'userId'",
    ]);
  });

  it("gives a call of @connections to the invocation of its trace", () => {
    const [first, second] = [ids(3), ids(4)];
    const { steps } = build(
      entry(101, "message", [first[0]], { routeKey: "$default" }),
      entry(101, "message", [second[0]], { routeKey: "$default" }),
      invocation(3, 101, 101.1, { purpose: "$default" }),
      invocation(4, 101, 101.1, { purpose: "$default" }),
      entry(101.05, "management", [second[2]], { method: "POST", status: 200, caller: CALLER }),
    );

    expect(outlineRows(steps[1]?.rows ?? [])).toEqual(["message", ["invocation", "management"]]);
  });

  it("says why API Gateway itself has refused a message", () => {
    const [request] = ids(5);
    const body = '{"message": "Forbidden", "connectionId":"a", "requestId":"b"}';
    const { steps } = build(
      entry(101, "message", [request], { routeKey: null, body: "hello", reason: "no route", endedAt: 101.001 }),
      entry(101.001, "frame", [request], { body, from: "gateway" }),
    );

    expect(steps[0]).toMatchObject({
      title: "Message without a route failed: Forbidden",
      reason: { text: "no route", source: "API Gateway" },
    });
  });

  it("keeps the keys of rows when entries are added", () => {
    const keys = (entries: Entry[]) =>
      build(...entries).steps.flatMap(({ rows }) => [...walk(rows)].map(({ key }) => key));
    const before = [...acceptedHandshake(), ...answeredMessage(3, 101)];
    const after = [...before, ...answeredMessage(4, 102)];

    expect(keys(after)).toEqual(expect.arrayContaining(keys(before)));
    expect(new Set(keys(after)).size).toBe(after.length);
  });

  it("is built in less than quadratic time", { timeout: 10_000 }, () => {
    const entries = Array.from({ length: 3400 }, (_, n) =>
      answeredMessage(3, 101 + n).map((each) => ({ ...each, keys: each.keys.map((key) => makeUnique(key, n)) })),
    ).flat();

    expect(build(...entries).steps).toHaveLength(3400);
  });
});

describe("the end of a connection", () => {
  it("has the reason of the authorizer's log for a refused handshake", () => {
    expect(build(...refusedHandshake()).end).toMatchObject({
      state: "refused",
      title: "Handshake refused: 403",
      reason: { text: "the token has expired", code: "expired_token.exp", source: "the log of authorizer" },
    });
  });

  it("has the reason that the journal gives", () => {
    const [request] = ids(1);
    const reason = "its path is not /prod";
    const { end } = build(
      entry(100, "handshake", [request], {}),
      entry(100.1, "decision", [request], { status: 403, reason }),
    );

    expect(end.reason).toEqual({ text: reason, source: "API Gateway" });
  });

  it("has the error of a function for a handshake that failed", () => {
    const [request] = ids(2);
    const { end } = build(
      entry(100, "handshake", [request], {}),
      invocation(2, 100, 100.1, { purpose: "$connect", error: "ClientError", message: "not authorized" }),
      entry(100.2, "decision", [request], { status: 502 }),
    );

    expect(end.reason).toEqual({ text: "ClientError: not authorized", source: "the error of websocket" });
  });

  it("names the cause, and the reason in the log of $disconnect", () => {
    const [, lambda] = ids(6);
    const { end, steps } = build(
      ...acceptedHandshake(),
      entry(109, "management", [], { method: "DELETE", status: 204, caller: "Operator/grace" }),
      ending(110, "@connections DELETE"),
      invocation(6, 110.001, 110.01, { purpose: "$disconnect" }),
      {
        ...entry(110.005, "log", [], { function: "websocket", record: { reason: "kicked", endedBy: "grace" } }),
        keys: [lambda],
      },
    );

    expect(end).toMatchObject({
      state: "ended",
      title: "Closed by @connections DELETE, called by grace",
      at: 110,
      code: "1001",
      reason: { text: "an operator ended the connection: grace", code: "kicked" },
    });
    expect(outlineRows(steps.at(-1)?.rows ?? [])).toEqual(["end", ["invocation", "log"]]);
  });

  it("is missing while the connection is opening or live", () => {
    expect(build(...acceptedHandshake()).end).toMatchObject({ state: "live", title: "Open, live" });
    expect(build(...acceptedHandshake().slice(0, 1)).end.state).toBe("opening");
    expect(build()).toMatchObject({ steps: [], openedAt: undefined });
  });
});

describe("the ids of an entry", () => {
  it("are named by their format", () => {
    const [request, lambda, trace] = ids(1);

    expect(nameIds(CONNECTION, entry(0, "invocation", [request, lambda, trace], {})).map(({ name }) => name)).toEqual([
      "Connection id",
      "API Gateway request id",
      "Lambda request id",
      "Trace id",
    ]);
    expect(nameIds(CONNECTION, entry(0, "decision", [USER], {})).at(1)).toEqual({ name: "User", id: USER });
  });
});
