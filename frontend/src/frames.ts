/** The frames that the server sends to a client, and how to classify them by the members of their JSON. */

export type Frame =
  | { readonly kind: "echo"; readonly text: string }
  | { readonly kind: "keepalive" }
  | { readonly kind: "error"; readonly code: string; readonly text: string; readonly requestId?: string }
  | { readonly kind: "push"; readonly text: string };

/** The keep-alive message. API Gateway selects the route by `$request.body.action`. */
export const KEEPALIVE = JSON.stringify({ action: "keepalive" });

/** Code of API Gateway's own error frames, for example `Internal server error`. */
export const API_GATEWAY_ERROR = "api_gateway";

/** Classify a text frame. A text that matches no known shape is a push. */
export function parseFrame(text: string): Frame {
  const members = parseObject(text);
  const { message, error, requestId, keepalive } = members;
  const shape = Object.keys(members).sort().join(" ");
  if (shape === "message" && isText(message)) {
    return { kind: "echo", text: message };
  }
  if (shape === "keepalive" && keepalive === true) {
    return { kind: "keepalive" };
  }
  if (shape === "error message" && isText(error) && isText(message)) {
    return { kind: "error", code: error, text: message };
  }
  if (shape === "connectionId error message requestId" && isText(error) && isText(message) && isText(requestId)) {
    return { kind: "error", code: error, text: message, requestId };
  }
  if (shape === "connectionId message requestId" && isText(message) && isText(requestId)) {
    return { kind: "error", code: API_GATEWAY_ERROR, text: message, requestId };
  }
  return { kind: "push", text };
}

function isText(value: unknown): value is string {
  return typeof value === "string";
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};
  } catch {
    return {};
  }
}
