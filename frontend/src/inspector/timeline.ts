/**
 * The timeline of a connection: steps in order, each with what belongs to it.
 *
 * The journal joins entries by ids. An invocation belongs to the handshake or message with the same request id of API
 * Gateway. A log line, an AWS call and a trace belong to the invocation with which they share the most ids.
 */

import type { Entry } from "./api";
import { type Facts, isObject, parseObject, shorten, toNumber, toObject, toText } from "./json";
import { explainReason } from "./reasons";
import {
  describeCause,
  describeEntry,
  describeError,
  documentOf,
  errorOfFrame,
  isAuthorizer,
  nameCaller,
  type Tone,
  titleEnd,
  titleHandshake,
  titleMessage,
} from "./sentences";

/** Why something happened, as far as the journal knows. */
export interface Reason {
  readonly text: string;
  /** The code in a function's log. */
  readonly code?: string;
  /** Who says so. */
  readonly source: string;
}

export interface Row {
  readonly key: string;
  readonly entry: Entry;
  readonly at: number;
  readonly children: Row[];
  /** The segments of a trace; undefined for any other row. */
  readonly documents?: Facts[];
}

export interface Step {
  readonly key: string;
  readonly at: number;
  readonly title: string;
  readonly tone: Tone;
  readonly reason: Reason | undefined;
  readonly rows: readonly Row[];
}

export interface Timeline {
  readonly steps: readonly Step[];
  readonly openedAt: number | undefined;
  readonly end: End;
}

/** Whether and why the connection has ended. */
export interface End {
  readonly state: "opening" | "live" | "refused" | "ended";
  readonly title: string;
  readonly tone: Tone;
  readonly at: number | undefined;
  readonly reason: Reason | undefined;
  /** What the cause means. */
  readonly meaning: string | undefined;
  readonly code: string | undefined;
}

const SAME_CALL_SECONDS = 1;

interface Draft {
  readonly key: string;
  readonly at: number;
  readonly head: Entry;
  readonly rows: Row[];
}

export function buildTimeline(connectionId: string, entries: readonly Entry[]): Timeline {
  const ordered = entries
    .map((entry) => ({ entry, at: startOf(entry) }))
    .sort((one, other) => one.at - other.at)
    .map(({ entry }) => entry);
  const drafts = joinEntries(connectionId, ordered);
  const handshake = drafts.find(({ head }) => head.kind === "handshake");
  const steps = drafts.map(finishStep);
  return {
    steps,
    openedAt: handshake?.at ?? drafts[0]?.at,
    end: explainEnd(ordered, steps),
  };
}

function joinEntries(connectionId: string, entries: readonly Entry[]): Draft[] {
  const makeRow = rowMaker();
  const drafts: Draft[] = [];
  const byRequest = new Map<string, Draft>();
  const ownKeys = (entry: Entry) => entry.keys.filter((key) => key !== connectionId);
  const begin = (entry: Entry, row: Row): Draft => {
    const draft = { key: row.key, at: row.at, head: entry, rows: [row] };
    drafts.push(draft);
    return draft;
  };

  // What happens to a connection begins a step.
  const rest: Entry[] = [];
  for (const entry of entries) {
    if (entry.kind === "handshake" || entry.kind === "message" || entry.kind === "end") {
      const draft = begin(entry, makeRow(entry));
      for (const key of ownKeys(entry)) {
        byRequest.set(key, draft);
      }
    } else {
      rest.push(entry);
    }
  }
  const end = drafts.find(({ head }) => head.kind === "end");
  const handshake = drafts.find(({ head }) => head.kind === "handshake");
  const findStep = (entry: Entry) =>
    ownKeys(entry)
      .map((key) => byRequest.get(key))
      .find((draft) => draft !== undefined);

  /** Put a row where it belongs; a row that belongs nowhere is a step of its own. Return the rows around it. */
  const attach = (row: Row, rows: Row[] | undefined): Row[] => {
    rows?.push(row);
    return rows ?? begin(row.entry, row).rows;
  };

  // An invocation belongs to the step of its request.
  const invocations: Row[] = [];
  const byKey = new Map<string, Row[]>();
  for (const entry of rest.filter(({ kind }) => kind === "invocation")) {
    const row = makeRow(entry);
    const step = findStep(entry) ?? (entry.facts.purpose === "$disconnect" ? end : undefined);
    attach(row, step?.rows);
    invocations.push(row);
    for (const key of ownKeys(entry)) {
      const sharing = byKey.get(key) ?? [];
      sharing.push(row);
      byKey.set(key, sharing);
    }
  }

  // The others belong to an invocation, to a step, or to the connection alone.
  const running = new RunningInvocations(invocations);
  const traces = new Map<string, Row>();
  let called: { at: number; rows: Row[] } | undefined; // the latest call of @connections
  for (const entry of rest.filter(({ kind }) => kind !== "invocation")) {
    const trace = entry.kind === "trace" ? traces.get(traceKey(entry)) : undefined;
    if (trace) {
      trace.documents?.push(documentOf(entry.facts));
      continue;
    }
    const row = makeRow(entry);
    switch (entry.kind) {
      case "trace":
        traces.set(traceKey(entry), row);
        attach(row, findOwner(ownKeys(entry), byKey)?.children);
        break;
      case "log":
      case "call":
        attach(row, findOwner(ownKeys(entry), byKey)?.children ?? findStep(entry)?.rows);
        break;
      case "management":
        called = {
          at: entry.at,
          rows: attach(row, (findOwner(ownKeys(entry), byKey) ?? running.find(entry))?.children),
        };
        break;
      case "frame": {
        // A frame that was sent by a call of @connections stands beside the call.
        const isOfCall = entry.facts.from === "@connections" && called && entry.at - called.at < SAME_CALL_SECONDS;
        attach(row, findStep(entry)?.rows ?? (isOfCall ? called?.rows : undefined));
        break;
      }
      default:
        attach(row, (findStep(entry) ?? (entry.kind === "decision" ? handshake : undefined))?.rows);
    }
  }
  for (const draft of drafts) {
    sortRows(draft.rows);
  }
  return drafts.sort((one, other) => one.at - other.at);
}

/** Make rows with keys that stay the same when entries are added, so that open details stay open. */
function rowMaker(): (entry: Entry) => Row {
  const seen = new Map<string, number>();
  return (entry) => {
    const name = `${entry.kind} ${entry.at} ${entry.keys.join(" ")}`;
    const count = seen.get(name) ?? 0;
    seen.set(name, count + 1);
    const row: Row = { key: `${name} ${count}`, entry, at: startOf(entry), children: [] };
    return entry.kind === "trace" ? { ...row, documents: [documentOf(entry.facts)] } : row;
  };
}

/** Return when an entry begins. An invocation and a trace are recorded when they end. */
function startOf({ at, kind, facts }: Entry): number {
  return toNumber(kind === "trace" ? documentOf(facts).start_time : facts.startedAt) ?? at;
}

function sortRows(rows: Row[]): void {
  const isLast = (row: Row) => Number(row.entry.kind === "trace");
  rows.sort((one, other) => isLast(one) - isLast(other) || one.at - other.at);
  for (const row of rows) {
    sortRows(row.children);
  }
}

/** Return the invocation that shares the most ids; of several the last one. */
function findOwner(keys: readonly string[], byKey: ReadonlyMap<string, readonly Row[]>): Row | undefined {
  const shared = new Map<Row, number>();
  for (const key of new Set(keys)) {
    for (const row of byKey.get(key) ?? []) {
      shared.set(row, (shared.get(row) ?? 0) + 1);
    }
  }
  let owner: Row | undefined;
  for (const [row, count] of shared) {
    if (owner === undefined || count >= (shared.get(owner) ?? 0)) {
      owner = row;
    }
  }
  return owner;
}

/**
 * Find the invocation that made a call of `@connections`: the only one that ran at that time, and whose function may be
 * the caller. Both the invocations and the calls come in order of time.
 */
class RunningInvocations {
  private readonly waiting: Row[];
  private running: Row[] = [];

  constructor(invocations: readonly Row[]) {
    this.waiting = invocations.filter(({ entry }) => !isAuthorizer(entry.facts)).reverse();
  }

  find(call: Entry): Row | undefined {
    for (let next = this.waiting.at(-1); next && next.at <= call.at; next = this.waiting.at(-1)) {
      this.running.push(next);
      this.waiting.pop();
    }
    this.running = this.running.filter(({ entry }) => call.at <= (toNumber(entry.facts.endedAt) ?? call.at));
    const caller = nameCaller(call.facts.caller);
    const possible = this.running.filter(({ entry }) => caller === undefined || entry.facts.function === caller);
    return possible.length === 1 ? possible[0] : undefined;
  }
}

function traceKey(entry: Entry): string {
  return toText(documentOf(entry.facts).trace_id) ?? entry.keys.join(" ");
}

function finishStep({ key, at, head, rows }: Draft): Step {
  const all = [...walk(rows)];
  const { text, tone } = titleStep(head, at, all);
  const reason = findReason(head, all);
  const isRepeated = reason && text.endsWith(`: ${shorten(reason.text)}`);
  return { key, at, title: text, tone, reason: isRepeated ? undefined : reason, rows };
}

function titleStep(head: Entry, at: number, rows: readonly Row[]): { text: string; tone: Tone } {
  switch (head.kind) {
    case "handshake":
      return titleHandshake(rows.find(({ entry }) => entry.kind === "decision")?.entry.facts);
    case "message": {
      const ran = rows.find(({ entry }) => entry.kind === "invocation");
      const failure = rows.find(({ entry }) => entry.kind === "frame" && errorOfFrame(entry.facts) !== undefined);
      const error = (ran && describeError(ran.entry.facts)) ?? (failure && errorOfFrame(failure.entry.facts));
      const endedAt = toNumber(head.facts.endedAt) ?? (ran && toNumber(ran.entry.facts.endedAt));
      const duration = endedAt === undefined ? undefined : Math.max(0, endedAt - at);
      return titleMessage(head.facts, { duration, error, isRunning: ran !== undefined && endedAt === undefined });
    }
    case "end":
      return titleEnd(head.facts);
    default: {
      const title = Object.hasOwn(OTHER_TITLES, head.kind) ? OTHER_TITLES[head.kind] : undefined;
      return { text: title ?? shorten(head.kind), tone: describeEntry(head).tone };
    }
  }
}

/** Titles of entries that belong to no handshake, message or end. */
const OTHER_TITLES: Record<string, string> = {
  invocation: "Invocation",
  decision: "Decision about the handshake",
  frame: "Push to the client",
  management: "Call of @connections",
  call: "AWS call",
  log: "Log line",
  trace: "Trace",
};

/** Return the reason in a step's log records, or what can be concluded from its other entries. */
function findReason(head: Entry, rows: readonly Row[]): Reason | undefined {
  const failed = rows.find(({ entry }) => entry.kind === "invocation" && describeError(entry.facts) !== undefined);
  const error = failed && describeError(failed.entry.facts);
  for (const { entry } of rows) {
    const reason = entry.kind === "log" ? reasonOfLog(entry.facts) : undefined;
    // A log record that only names the error's type says less than the error.
    if (reason && !error?.startsWith(`${reason.code}:`)) {
      return reason;
    }
  }
  if (failed && error !== undefined) {
    return { text: error, source: `the error of ${toText(failed.entry.facts.function) ?? "a function"}` };
  }
  if (head.kind === "message") {
    const text = toText(head.facts.reason);
    return text === undefined ? undefined : { text, source: "API Gateway" };
  }
  return head.kind === "handshake" ? reasonOfRefusal(rows) : undefined;
}

function reasonOfLog(facts: Facts): Reason | undefined {
  const record = isObject(facts.record) ? facts.record : parseObject(facts.record);
  const code = toText(record.reason);
  if (code === undefined) {
    return undefined;
  }
  const endedBy = toText(record.endedBy);
  const text = explainReason(code) ?? code;
  return {
    text: endedBy ? `${text}: ${endedBy}` : text,
    code,
    source: `the log of ${toText(facts.function) ?? "a function"}`,
  };
}

/** Return why API Gateway has refused a handshake. */
function reasonOfRefusal(rows: readonly Row[]): Reason | undefined {
  const decision = rows.find(({ entry }) => entry.kind === "decision")?.entry.facts;
  const hasInvoked = rows.some(({ entry }) => entry.kind === "invocation");
  const { reason, status, effect } = toObject(decision);
  const text = toText(reason) ?? explainStatus(toNumber(status), hasInvoked, toText(effect));
  return text === undefined ? undefined : { text, source: "API Gateway" };
}

function explainStatus(status: number | undefined, hasInvoked: boolean, effect: string | undefined) {
  if (status === 401 && !hasInvoked) {
    return "the client sent nothing where the API looks for a token, so the authorizer was not invoked";
  }
  if (status === 429 && !hasInvoked) {
    return "there were more handshakes than the stage's throttle takes";
  }
  if (status === 403 && effect !== undefined) {
    return `the authorizer's policy does not allow the connection (${effect})`;
  }
  if (status === 403 && !hasInvoked) {
    return "the path is not the path of the stage";
  }
  return status === 500 && hasInvoked ? "the authorizer's answer is not valid" : undefined;
}

function explainEnd(entries: readonly Entry[], steps: readonly Step[]): End {
  const ended = entries.find(({ kind }) => kind === "end");
  const decision = entries.find(({ kind }) => kind === "decision");
  const status = toNumber(decision?.facts.status);
  if (decision && status !== undefined && status !== 101) {
    const step = steps.find(({ rows }) => [...walk(rows)].some(({ entry }) => entry === decision));
    return {
      ...NOT_ENDED,
      state: "refused",
      ...titled(titleHandshake(decision.facts)),
      at: decision.at,
      reason: step?.reason,
    };
  }
  if (ended) {
    const step = steps.find(({ rows }) => [...walk(rows)].some(({ entry }) => entry === ended));
    const { text, tone, meaning } = describeCause(toText(ended.facts.cause));
    const closer = entries.filter(({ kind, facts }) => kind === "management" && facts.method === "DELETE").at(-1);
    const caller = ended.facts.cause === "@connections DELETE" ? nameCaller(closer?.facts.caller) : undefined;
    return {
      state: "ended",
      title: caller ? `${text}, called by ${shorten(caller)}` : text,
      tone,
      at: ended.at,
      reason: step?.reason,
      meaning,
      code: toText(ended.facts.code),
    };
  }
  return decision ? { ...NOT_ENDED, state: "live", title: "Open, live", tone: "good" } : NOT_ENDED;
}

const NOT_ENDED: End = {
  state: "opening",
  title: "Opening",
  tone: "plain",
  at: undefined,
  reason: undefined,
  meaning: undefined,
  code: undefined,
};

function titled({ text, tone }: { text: string; tone: Tone }) {
  return { title: text, tone };
}

/** Yield rows with all that is in them. */
export function* walk(rows: readonly Row[]): Generator<Row> {
  for (const row of rows) {
    yield row;
    yield* walk(row.children);
  }
}

/** An id of an entry with its name. */
export interface NamedId {
  readonly name: string;
  readonly id: string;
}

const TRACE_ID = /^1-[0-9a-f]{8}-[0-9a-f]{24}$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** Name the ids of an entry by their form: the journal keeps them without names. */
export function nameIds(connectionId: string, { keys, kind }: Entry): NamedId[] {
  return [...new Set(keys)].map((id) => {
    if (id === connectionId) {
      return { name: "Connection id", id };
    }
    if (TRACE_ID.test(id)) {
      return { name: "Trace id", id };
    }
    if (kind === "decision" && UUID.test(id)) {
      return { name: "User", id };
    }
    return { name: UUID.test(id) ? "Lambda request id" : "API Gateway request id", id };
  });
}

/** Return the trace id of a row, by which its documents can be saved. */
export function traceIdOf({ entry, documents }: Row): string | undefined {
  return toText(documents?.[0]?.trace_id) ?? entry.keys.find((key) => TRACE_ID.test(key));
}
