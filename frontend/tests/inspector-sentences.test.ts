import { describe, expect, it } from "vitest";
import type { Entry } from "../src/inspector/api";
import { formatDuration, formatOffset, formatTime } from "../src/inspector/format";
import { escapeHiddenCharacters, formatJson, shorten } from "../src/inspector/json";
import { explainReason } from "../src/inspector/reason-codes";
import { describeCause, describeEntry, makeHandshakeTitle, makeMessageTitle } from "../src/inspector/sentences";
import { CALLER, policy } from "./inspector-data";

function describeFacts(kind: string, facts: Entry["facts"]) {
  return describeEntry({ at: 0, kind, keys: [], facts });
}

describe("the sentence of an entry", () => {
  const invocation = { function: "websocket", purpose: "$default", startedAt: 1, endedAt: 1.012 };

  it.each<[kind: string, facts: Entry["facts"], text: string, tone: string]>([
    [
      "handshake",
      { method: "GET", path: "/prod", sourceIp: "127.0.0.1" },
      "The client asked: GET /prod from 127.0.0.1",
      "plain",
    ],
    ["invocation", invocation, "websocket ran for $default in 12 ms", "plain"],
    [
      "invocation",
      { ...invocation, answer: { statusCode: 200 } },
      "websocket ran for $default in 12 ms: answer 200",
      "plain",
    ],
    [
      "invocation",
      { ...invocation, function: "authorizer", purpose: "authorizer", answer: policy("Deny") },
      "authorizer ran as the authorizer in 12 ms: Deny",
      "warning",
    ],
    [
      "invocation",
      { ...invocation, error: "KeyError", message: "'userId'" },
      "websocket failed for $default after 12 ms: KeyError: 'userId'",
      "error",
    ],
    [
      "invocation",
      { ...invocation, error: { errorType: "KeyError", errorMessage: "'userId'" } },
      "websocket failed for $default after 12 ms: KeyError: 'userId'",
      "error",
    ],
    ["invocation", { ...invocation, endedAt: null }, "websocket is running for $default", "plain"],
    [
      "decision",
      { status: 101, subprotocol: "echo.v1" },
      "API Gateway answered 101: the connection is open, with subprotocol echo.v1",
      "good",
    ],
    [
      "decision",
      { status: 401, body: '{"message":"Unauthorized"}' },
      "API Gateway answered 401: “Unauthorized”",
      "error",
    ],
    ["message", { body: "hello" }, "The client sent “hello”", "plain"],
    ["message", { body: "" }, "The client sent an empty message", "plain"],
    ["frame", { body: "hello", from: "@connections" }, "Sent to the client by @connections: “hello”", "plain"],
    [
      "frame",
      { body: '{"message": "Internal server error", "connectionId":"a", "requestId":"b"}', from: "gateway" },
      "Sent to the client by API Gateway itself: “Internal server error”",
      "error",
    ],
    [
      "frame",
      { body: '{"error": "token_expired", "message": "Your token has expired."}', from: "@connections" },
      "Sent to the client by @connections: “Your token has expired.”",
      "error",
    ],
    [
      "management",
      { method: "POST", status: 200, caller: CALLER },
      "@connections POST by websocket: 200, which sent a message",
      "plain",
    ],
    [
      "management",
      { method: "DELETE", status: 204, caller: "Operator/grace" },
      "@connections DELETE by grace: 204, which closed the connection",
      "plain",
    ],
    [
      "management",
      { method: "POST", status: 410, caller: CALLER },
      "@connections POST by websocket: 410, the connection was closed already",
      "warning",
    ],
    [
      "call",
      { service: "dynamodb", operation: "PutItem", effect: "allowed", status: 200, milliseconds: 8.1 },
      "AWS call dynamodb:PutItem: allowed by IAM, answered 200 in 8.1 ms",
      "plain",
    ],
    [
      "call",
      { service: "dynamodb", operation: "PutItem", effect: "denied", status: 400 },
      "AWS call dynamodb:PutItem: denied by IAM, the role has no grant for it, answered 400",
      "error",
    ],
    [
      "call",
      { service: "sts", operation: "GetCallerIdentity", effect: "not evaluated" },
      "AWS call sts:GetCallerIdentity: IAM was not evaluated",
      "plain",
    ],
    [
      "log",
      { record: { level: "WARNING", message: "connection rejected" } },
      "Log: WARNING connection rejected",
      "warning",
    ],
    ["log", { record: "plain line\n" }, "Log: plain line", "plain"],
    ["log", { record: "[ERROR] KeyError: 'a'" }, "Log: [ERROR] KeyError: 'a'", "error"],
    ["trace", { document: { name: "websocket" } }, "Trace of websocket", "plain"],
    ["end", { code: 1001, reason: "Going away" }, "Close code 1001 (going away), reason “Going away”", "plain"],
    ["end", { code: 1006, reason: "" }, "Close code 1006 (abnormal closure), without a reason", "plain"],
    ["end", { code: 4000, reason: "" }, "Close code 4000, without a reason", "plain"],
    ["something new", { a: 1 }, "something new", "plain"],
  ])("%s %j", (kind, facts, text, tone) => {
    const sentence = describeFacts(kind, facts);

    expect(sentence.text).toBe(text);
    expect(sentence.tone).toBe(tone);
  });

  it("is not empty without any facts", () => {
    const kinds = "handshake invocation decision message frame management call log trace end".split(" ");

    expect(kinds.map((kind) => describeFacts(kind, {}).text)).not.toContain("");
  });

  it("shows the policy as a block of its own", () => {
    const { blocks } = describeFacts("invocation", { ...invocation, event: { a: 1 }, answer: policy("Allow") });

    expect(blocks.map(({ label }) => label)).toEqual(["Event", "Answer", "Policy"]);
  });

  it("shows all facts of an unknown kind", () => {
    expect(describeFacts("constructor", { toString: 1 }).blocks).toEqual([{ label: "toString", value: 1 }]);
  });
});

describe("the title of a step", () => {
  it("has the outcome of a handshake", () => {
    expect(makeHandshakeTitle({ status: 101 }).text).toBe("Handshake accepted: 101");
    expect(makeHandshakeTitle({ status: 403 }).text).toBe("Handshake refused: 403");
    expect(makeHandshakeTitle(undefined).text).toBe("Handshake, not decided yet");
  });

  it("has the outcome of a message", () => {
    const message = { routeKey: "$default" };

    expect(makeMessageTitle(message, { duration: 0.012 }).text).toBe("Message on route $default answered in 12 ms");
    expect(makeMessageTitle(message, { duration: 1, error: "KeyError" }).text).toBe(
      "Message on route $default failed: KeyError",
    );
    expect(makeMessageTitle(message, { isRunning: true }).text).toBe(
      "Message on route $default, its function is running",
    );
    expect(makeMessageTitle({}, {}).text).toBe("Message without a route");
  });

  it.each([
    ["client", "Closed by the client"],
    ["idle limit", "Closed by API Gateway: idle limit"],
    ["connection limit", "Closed by API Gateway: connection limit"],
    ["@connections DELETE", "Closed by @connections DELETE"],
    ["connection lost", "Connection lost"],
    ["protocol error", "Closed by API Gateway: protocol error"],
    ["local run ends", "Closed because the local run ended"],
    ["constructor", "Closed: constructor"],
    [undefined, "Closed"],
  ])("says who has closed the connection: %s", (cause, text) => {
    expect(describeCause(cause).text).toBe(text);
  });
});

describe("a reason code", () => {
  it.each([
    ["expired_token.exp", "the token has expired"],
    ["repeated_idToken", "the client sent idToken more than once"],
    ["invalid_claim.aud", "the token's claim aud has a wrong value"],
    ["missing_claim.", undefined],
    ["toString", undefined],
  ])("%s means: %s", (code, meaning) => {
    expect(explainReason(code)).toBe(meaning);
  });
});

describe("durations and times", () => {
  it.each([
    [0, "0 ms"],
    [0.0004, "0.4 ms"],
    [0.00996, "10 ms"],
    [0.012, "12 ms"],
    [0.9996, "1 s"],
    [1.5, "1.5 s"],
    [59.96, "1 min 00 s"],
    [600, "10 min 00 s"],
    [7200, "2 h 00 min"],
  ])("%d s is %s", (seconds, text) => {
    expect(formatDuration(seconds)).toBe(text);
  });

  it.each([
    [0, "+0 ms"],
    [1.0124, "+1.012 s"],
    [59.9999, "+1 min 00 s"],
    [-0.002, "−2 ms"],
  ])("an offset of %d s is %s", (seconds, text) => {
    expect(formatOffset(seconds)).toBe(text);
  });

  it("a time has a date only if it is of another day", () => {
    const noon = new Date(2026, 10, 29, 12).getTime();

    expect(formatTime(noon / 1000, noon)).not.toContain("2026");
    expect(formatTime(noon / 1000 - 86_400, noon)).toContain("2026");
  });
});

describe("untrusted text", () => {
  it("is shown as JSON only if it is an object or a list", () => {
    expect(formatJson('{"a":1}')).toBe('{\n  "a": 1\n}');
    expect(formatJson({ a: 1 })).toBe('{\n  "a": 1\n}');
    expect(formatJson("12")).toBe("12");
    expect(formatJson("{not JSON")).toBe("{not JSON");
    expect(formatJson(undefined)).toBe("undefined");
  });

  it("is not indented if it is nested so deeply that the indentation would exhaust the memory", () => {
    const nested = "[".repeat(16_000) + "]".repeat(16_000);

    expect(formatJson(nested)).toBe(nested);
    expect(formatJson(JSON.parse("[".repeat(2000) + "]".repeat(2000))).length).toBeLessThan(5000);
  });

  it("has visible codes for characters that hide text or change its direction", () => {
    expect(escapeHiddenCharacters("a\u202egnp.exe\u0007\r\n\tb")).toBe("a\\u202egnp.exe\\u0007\\u000d\n\tb");
    expect(escapeHiddenCharacters("Grüße 👩‍👩‍👧 שלום")).toBe("Grüße 👩‍👩‍👧 שלום");
  });

  it("is shortened to one line, but not within a character", () => {
    expect(shorten("a\n  b")).toBe("a b");
    expect(shorten("👩".repeat(300), 10)).toBe(`${"👩".repeat(10)}…`);
    expect(shorten("x".repeat(100_000)).length).toBe(161);
  });
});
