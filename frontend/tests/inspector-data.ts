/** Entries of the journal, as the inspector's server sends them. */

import type { Entry } from "../src/inspector/api";
import type { Facts } from "../src/inspector/json";

export const CONNECTION = "L0SM9cOFvHcCIhw=";
export const USER = "7c879a84-2108-4d34-8151-1e6fa00faafc";
export const CALLER = "arn:aws:sts::000000000000:assumed-role/WebSocketCognito-WebSocketRoleA55FACE2/websocket";
export const HOSTILE = '</pre><script>alert(1)</script><img src=x onerror="alert(2)">';

export function entry(at: number, kind: string, keys: readonly string[], facts: Facts): Entry {
  return { at, kind, keys: [CONNECTION, ...keys], facts };
}

/** Return the ids of the n-th request: of API Gateway, of Lambda, of the trace. */
export function ids(n: number): [request: string, lambda: string, trace: string] {
  const digit = String(n % 10);
  return [
    `request${digit}AAAAAA=`,
    `0000000${digit}-0000-4000-8000-000000000000`,
    `1-6b0c212b-00000000000000000000000${digit}`,
  ];
}

export function invocation(n: number, from: number, to: number, facts: Facts): Entry {
  return entry(to, "invocation", ids(n), { function: "websocket", startedAt: from, endedAt: to, ...facts });
}

export function policy(effect: string): Facts {
  return { principalId: USER, policyDocument: { Version: "2012-10-17", Statement: [{ Effect: effect }] } };
}

/** A refused handshake, whose reason is in the authorizer's log. */
export function refusedHandshake(): Entry[] {
  const [request, lambda] = ids(1);
  const record = { level: "WARNING", message: "connection rejected", reason: "expired_token.exp" };
  return [
    entry(100, "handshake", [request], { method: "GET", path: "/prod", headers: {}, sourceIp: "127.0.0.1" }),
    { ...entry(100.004, "log", [], { function: "authorizer", record }), keys: [lambda] },
    invocation(1, 100.001, 100.005, { function: "authorizer", purpose: "authorizer", answer: policy("Deny") }),
    entry(100.006, "decision", [request], {
      status: 403,
      body: '{"Message":"User is not authorized"}',
      effect: "Deny",
    }),
  ];
}

export function acceptedHandshake(): Entry[] {
  const [request] = ids(2);
  const authorizer = { function: "authorizer", purpose: "authorizer", answer: policy("Allow") };
  return [
    entry(100, "handshake", [request], { method: "GET", path: "/prod", headers: {}, sourceIp: "127.0.0.1" }),
    { ...invocation(1, 100.001, 100.005, authorizer), keys: [CONNECTION, request, ids(1)[1]] },
    invocation(2, 100.006, 100.03, { purpose: "$connect", answer: { statusCode: 200 } }),
    entry(100.031, "decision", [request, USER], { status: 101, subprotocol: "echo.v1", effect: "Allow" }),
  ];
}

/** A message whose function answers by a call of `@connections`. */
export function answeredMessage(n: number, at: number): Entry[] {
  const [request, lambda, trace] = ids(n);
  return [
    entry(at, "message", [request], { routeKey: "$default", body: "hello" }),
    invocation(n, at + 0.001, at + 0.012, { purpose: "$default", answer: { statusCode: 200 } }),
    entry(at + 0.006, "management", [], { method: "POST", status: 200, caller: CALLER }),
    entry(at + 0.0061, "frame", [], { body: '{"message": "hello"}', from: "@connections" }),
    {
      ...entry(at + 0.007, "call", [], { service: "execute-api", operation: "ManageConnections", effect: "allowed" }),
      keys: [trace, lambda],
    },
    { ...entry(at + 0.013, "trace", [], { document: segment(trace, at) }), keys: [trace] },
  ];
}

export function segment(traceId: string, start: number): Facts {
  return { id: "a", trace_id: traceId, name: "websocket", start_time: start, end_time: start + 0.01 };
}

export function ending(at: number, cause: string, facts: Facts = {}): Entry {
  return entry(at, "end", [], { code: 1001, reason: "Going away", cause, ...facts });
}
