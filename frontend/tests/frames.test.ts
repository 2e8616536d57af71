import fc from "fast-check";
import { expect, test } from "vitest";
import { parseFrame } from "../src/frames";

test.each([
  ['{"message": "hello"}', { kind: "echo", text: "hello" }],
  ['{"keepalive": true}', { kind: "keepalive" }],
  ['{"error": "token_expired", "message": "m"}', { kind: "error", code: "token_expired", text: "m" }],
  [
    '{"error": "token_expired", "message": "m", "connectionId": "c=", "requestId": "r="}',
    { kind: "error", code: "token_expired", text: "m", requestId: "r=" },
  ],
  [
    '{"message": "Forbidden", "connectionId": "c=", "requestId": "r="}',
    { kind: "error", code: "api_gateway", text: "Forbidden", requestId: "r=" },
  ],
])("%s is a frame of the API", (text, frame) => {
  expect(parseFrame(text)).toEqual(frame);
});

test.each([
  "news",
  "",
  "null",
  '["message"]',
  '"message"',
  "{}",
  '{"message": 1}',
  '{"message": "hello", "from": "Ada"}',
  '{"keepalive": false}',
  '{"keepalive": true, "message": "m"}',
  '{"error": {"code": 1}, "message": "m"}',
  '{"error": "e"}',
  '{"message": "m", "connectionId": "c="}',
  '{"message": "m", "connectionId": "c=", "requestId": "r=", "error": 1}',
  '{"message": "m", "connectionId": "c=", "requestId": 1, "error": "e"}',
])("%s is a push", (text) => {
  expect(parseFrame(text)).toEqual({ kind: "push", text });
});

test("any text can be parsed", () => {
  fc.assert(
    fc.property(fc.oneof(fc.string({ unit: "binary" }), fc.json()), (text) => {
      expect(parseFrame(text).kind).toMatch(/echo|push|keepalive|error/);
    }),
  );
});

test("recognizes an echo of any text", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme" }), (text) => {
      expect(parseFrame(JSON.stringify({ message: text }))).toEqual({ kind: "echo", text });
    }),
  );
});
