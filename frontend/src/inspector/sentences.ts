/** Describe the journal's entries in plain words. Their content is untrusted, and is only shown as text. */

import type { Entry } from "./api";
import { formatDuration } from "./format";
import { type Facts, isObject, parseObject, shorten, toNumber, toObject, toText } from "./json";

/** How a sentence is coloured. The words say the same. */
export type Tone = "plain" | "good" | "warning" | "error";

/** A part of an entry that is shown on demand. */
export interface Block {
  readonly label: string;
  readonly value: unknown;
}

export interface Sentence {
  readonly text: string;
  readonly tone: Tone;
  readonly blocks: readonly Block[];
}

/** Who closed a connection, by the journal's `cause`. */
const CAUSES: Record<string, { text: string; tone: Tone; meaning?: string }> = {
  client: { text: "Closed by the client", tone: "plain" },
  "idle limit": {
    text: "Closed by API Gateway: idle limit",
    tone: "warning",
    meaning: "There was no message in either direction for the idle limit, which is 10 minutes on AWS.",
  },
  "connection limit": {
    text: "Closed by API Gateway: connection limit",
    tone: "warning",
    meaning: "It was open for the connection limit, which is 2 hours on AWS.",
  },
  "@connections DELETE": {
    text: "Closed by @connections DELETE",
    tone: "warning",
    meaning: "A function or another server deleted the connection.",
  },
  "connection lost": {
    text: "Connection lost",
    tone: "error",
    meaning: "The network connection ended without a closing handshake.",
  },
  "protocol error": {
    text: "Closed by API Gateway: protocol error",
    tone: "error",
    meaning: "The client sent a frame that API Gateway does not accept.",
  },
  "local run ends": { text: "Closed because the local run ended", tone: "plain" },
};

export function describeCause(cause: string | undefined): { text: string; tone: Tone; meaning?: string } {
  if (cause === undefined) {
    return { text: "Closed", tone: "plain" };
  }
  const known = Object.hasOwn(CAUSES, cause) ? CAUSES[cause] : undefined;
  return known ?? { text: `Closed: ${shorten(cause)}`, tone: "plain" };
}

/** Return the sentence for one entry. */
export function describeEntry(entry: Entry): Sentence {
  const describe = Object.hasOwn(DESCRIBERS, entry.kind) ? DESCRIBERS[entry.kind] : undefined;
  return describe?.(entry.facts) ?? { text: shorten(entry.kind), tone: "plain", blocks: collectBlocks(entry.facts) };
}

const DESCRIBERS: Record<string, (facts: Facts) => Sentence> = {
  handshake: describeHandshake,
  invocation: describeInvocation,
  decision: describeDecision,
  message: describeMessage,
  frame: describeFrame,
  management: describeManagement,
  call: describeCall,
  log: describeLog,
  trace: describeTrace,
  end: describeEnd,
};

function describeHandshake(facts: Facts): Sentence {
  const request = [toText(facts.method) ?? "GET", toText(facts.path)].filter(Boolean).join(" ");
  const source = toText(facts.sourceIp);
  return {
    text: `The client asked: ${shorten(request)}${source ? ` from ${shorten(source)}` : ""}`,
    tone: "plain",
    blocks: collectBlocks(facts, ["headers", "Headers"]),
  };
}

function describeInvocation(facts: Facts): Sentence {
  const name = shorten(toText(facts.function) ?? "A function");
  const blocks = [
    ...collectBlocks(facts, ["event", "Event"], ["answer", "Answer"], ["error", "Error"]),
    ...collectBlocks(toObject(facts.answer), ["policyDocument", "Policy"]),
  ];
  const role = isAuthorizer(facts) ? "as the authorizer" : `for ${shorten(toText(facts.purpose) ?? "no route")}`;
  const duration = getDuration(facts);
  const error = describeError(facts);
  if (error !== undefined) {
    const after = duration === undefined ? "" : ` after ${formatDuration(duration)}`;
    return { text: `${name} failed ${role}${after}: ${shorten(error)}`, tone: "error", blocks };
  }
  if (duration === undefined) {
    return { text: `${name} is running ${role}`, tone: "plain", blocks };
  }
  const outcome = describeAnswer(facts);
  const text = `${name} ran ${role} in ${formatDuration(duration)}${outcome ? `: ${outcome}` : ""}`;
  return { text, tone: outcome === "Deny" ? "warning" : "plain", blocks };
}

/** Return what an answer says: the effect of a policy, or a status. */
function describeAnswer(facts: Facts): string | undefined {
  const answer = toObject(facts.answer);
  if (isAuthorizer(facts)) {
    const statements = toObject(answer.policyDocument).Statement;
    const effects = (Array.isArray(statements) ? statements : [statements]).map((each) =>
      toText(toObject(each).Effect),
    );
    return effects.includes("Deny") ? "Deny" : effects.includes("Allow") ? "Allow" : undefined;
  }
  const status = toText(answer.statusCode);
  return status && `answer ${shorten(status)}`;
}

export function isAuthorizer(facts: Facts): boolean {
  return facts.purpose === "authorizer";
}

/** Return how long an invocation took; undefined while it is running. */
export function getDuration(facts: Facts): number | undefined {
  const [start, end] = [toNumber(facts.startedAt), toNumber(facts.endedAt)];
  return start === undefined || end === undefined ? undefined : Math.max(0, end - start);
}

/** Return an invocation's error with its message. */
export function describeError(facts: Facts): string | undefined {
  const { error } = facts;
  if (isObject(error)) {
    const type = toText(error.errorType) ?? toText(error.type) ?? toText(error.error) ?? "Error";
    const message = toText(error.errorMessage) ?? toText(error.message);
    return message ? `${type}: ${message}` : type;
  }
  const type = toText(error);
  const message = toText(facts.message) ?? toText(facts.errorMessage);
  return type && message ? `${type}: ${message}` : type;
}

function describeDecision(facts: Facts): Sentence {
  const status = toNumber(facts.status);
  const subprotocol = toText(facts.subprotocol);
  const blocks = collectBlocks(facts, ["body", "Body"], ["effect", "Effect of the policy"]);
  if (status === 101) {
    const chosen = subprotocol ? `, with subprotocol ${shorten(subprotocol)}` : "";
    return { text: `API Gateway answered 101: the connection is open${chosen}`, tone: "good", blocks };
  }
  const body = toText(facts.body);
  return {
    text: `API Gateway answered ${status ?? "?"}${body ? `: ${quote(findMessage(body))}` : ""}`,
    tone: "error",
    blocks,
  };
}

/** Return the title of a handshake's step. */
export function makeHandshakeTitle(decision: Facts | undefined): { text: string; tone: Tone } {
  if (decision === undefined) {
    return { text: "Handshake, not decided yet", tone: "plain" };
  }
  const status = toNumber(decision.status) ?? "?";
  return status === 101
    ? { text: "Handshake accepted: 101", tone: "good" }
    : { text: `Handshake refused: ${status}`, tone: "error" };
}

function describeMessage(facts: Facts): Sentence {
  const body = toText(facts.body);
  return {
    text: body ? `The client sent ${quote(body)}` : "The client sent an empty message",
    tone: "plain",
    blocks: collectBlocks(facts, ["body", "Body"]),
  };
}

/** The outcome of a message. */
export interface Outcome {
  /** Seconds until the function ended; undefined while it is running. */
  readonly duration?: number | undefined;
  readonly error?: string | undefined;
  readonly isRunning?: boolean;
}

/** Return the title of a message's step. */
export function makeMessageTitle(
  message: Facts,
  { duration, error, isRunning }: Outcome,
): { text: string; tone: Tone } {
  const route = toText(message.routeKey);
  const subject = route ? `Message on route ${shorten(route)}` : "Message without a route";
  if (error !== undefined) {
    return { text: `${subject} failed: ${shorten(error)}`, tone: "error" };
  }
  if (duration !== undefined) {
    return { text: `${subject} answered in ${formatDuration(duration)}`, tone: "plain" };
  }
  return { text: isRunning ? `${subject}, its function is running` : subject, tone: "plain" };
}

const SENDERS: Record<string, string> = {
  route: "the route's answer",
  "@connections": "@connections",
  gateway: "API Gateway itself",
};

function describeFrame(facts: Facts): Sentence {
  const from = toText(facts.from) ?? "";
  const sender = Object.hasOwn(SENDERS, from) ? SENDERS[from] : shorten(from);
  const error = findFrameError(facts);
  const body = error ?? toText(facts.body);
  return {
    text: `Sent to the client${sender ? ` by ${sender}` : ""}: ${body ? quote(body) : "an empty frame"}`,
    tone: error === undefined ? "plain" : "error",
    blocks: collectBlocks(facts, ["body", "Frame"]),
  };
}

/** Return the text of an error frame; undefined for any other frame. */
export function findFrameError(facts: Facts): string | undefined {
  const { error, message, requestId } = parseObject(facts.body);
  const isError = facts.from === "gateway" || toText(error) !== undefined || toText(requestId) !== undefined;
  return isError ? (toText(message) ?? toText(error)) : undefined;
}

const MANAGEMENT: Record<string, string> = {
  POST: "sent a message",
  GET: "looked the connection up",
  DELETE: "closed the connection",
};

function describeManagement(facts: Facts): Sentence {
  const method = toText(facts.method) ?? "";
  const status = toNumber(facts.status);
  const caller = shorten(nameCaller(facts.caller) ?? "an unknown caller");
  const blocks = collectBlocks(facts, ["body", "Body"], ["caller", "Caller"]);
  const hasFailed = status !== undefined && status >= 400;
  const action = hasFailed || !Object.hasOwn(MANAGEMENT, method) ? "" : `, which ${MANAGEMENT[method]}`;
  const meaning = status === 410 ? ", the connection was closed already" : "";
  return {
    text: `@connections ${shorten(method)} by ${caller}: ${status ?? "no answer"}${action}${meaning}`,
    tone: hasFailed ? "warning" : "plain",
    blocks,
  };
}

/** Return the function of a role session, which is written `arn:aws:sts::…:assumed-role/role/function` or `role/function`. */
export function nameCaller(caller: unknown): string | undefined {
  const text = toText(caller);
  return text?.slice(text.lastIndexOf("/") + 1) || text;
}

function describeCall(facts: Facts): Sentence {
  const name = [toText(facts.service), toText(facts.operation)].filter(Boolean).join(":");
  const effect = toText(facts.effect);
  const status = toText(facts.status);
  const milliseconds = toNumber(facts.milliseconds);
  const decision =
    effect === "allowed"
      ? "allowed by IAM"
      : effect === "denied"
        ? "denied by IAM, the role has no grant for it"
        : "IAM was not evaluated";
  const answer = status ? `, answered ${shorten(status)}` : "";
  const after = milliseconds === undefined ? "" : ` in ${formatDuration(milliseconds / 1000)}`;
  const hasFailed = effect === "denied" || (toNumber(facts.status) ?? 0) >= 400;
  return {
    text: `AWS call ${shorten(name)}: ${decision}${answer}${after}`,
    tone: hasFailed ? "error" : "plain",
    blocks: collectBlocks(facts, ["resource", "Resource"]),
  };
}

const LEVEL_TONES: Record<string, Tone> = { WARNING: "warning", WARN: "warning", ERROR: "error", CRITICAL: "error" };

function describeLog(facts: Facts): Sentence {
  const record = isObject(facts.record) ? facts.record : parseObject(facts.record);
  const message = toText(record.message) ?? toText(record.errorMessage);
  const level = toText(record.level);
  if (message === undefined && level === undefined) {
    const line = toText(facts.record) ?? "";
    const isError = /\[ERROR\]|Traceback|Task timed out/.test(line);
    return {
      text: `Log: ${line ? shorten(line) : "a record without a message"}`,
      tone: isError ? "error" : "plain",
      blocks: collectBlocks(facts, ["record", "Log record"]),
    };
  }
  return {
    text: `Log: ${[level, message].flatMap((each) => (each ? [shorten(each)] : [])).join(" ")}`,
    tone: (level && Object.hasOwn(LEVEL_TONES, level) && LEVEL_TONES[level]) || "plain",
    blocks: [{ label: "Log record", value: record }],
  };
}

function describeTrace(facts: Facts): Sentence {
  const name = toText(getDocument(facts).name);
  return { text: `Trace${name ? ` of ${shorten(name)}` : ""}`, tone: "plain", blocks: collectBlocks(facts) };
}

/** Return the X-Ray document of a `trace` entry: the facts themselves, or their only member. */
export function getDocument(facts: Facts): Facts {
  return isObject(facts.document) ? facts.document : facts;
}

/** Names of close codes, https://www.rfc-editor.org/rfc/rfc6455#section-7.4.1. */
const CLOSE_CODES: Record<string, string> = {
  "1000": "normal closure",
  "1001": "going away",
  "1002": "protocol error",
  "1003": "unsupported data",
  "1005": "no status received",
  "1006": "abnormal closure",
  "1007": "invalid payload data",
  "1008": "policy violation",
  "1009": "message too big",
  "1011": "internal error",
};

export function nameCloseCode(code: string): string {
  const name = Object.hasOwn(CLOSE_CODES, code) ? CLOSE_CODES[code] : undefined;
  return name ? `${code} (${name})` : shorten(code);
}

function describeEnd(facts: Facts): Sentence {
  const code = toText(facts.code);
  const reason = toText(facts.reason);
  return {
    text: `Close code ${code ? nameCloseCode(code) : "unknown"}${reason ? `, reason ${quote(reason)}` : ", without a reason"}`,
    tone: "plain",
    blocks: [],
  };
}

/** Return the title of the end's step. */
export function makeEndTitle(facts: Facts): { text: string; tone: Tone } {
  const { text, tone } = describeCause(toText(facts.cause));
  return { text, tone };
}

function collectBlocks(facts: Facts, ...labels: [name: string, label: string][]): Block[] {
  const named = labels.length > 0 ? labels : Object.keys(facts).map((name): [string, string] => [name, shorten(name)]);
  return named.flatMap(([name, label]) => {
    const value = facts[name];
    return value === undefined || value === null || value === "" ? [] : [{ label, value }];
  });
}

/** Return the message in the body of an answer, whose key IAM capitalizes; the whole body if it has none. */
function findMessage(body: string): string {
  const { message, Message } = parseObject(body);
  return toText(message) ?? toText(Message) ?? body;
}

function quote(text: string): string {
  return `“${shorten(text, 100)}”`;
}
