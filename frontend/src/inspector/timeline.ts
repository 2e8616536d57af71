/**
 * The timeline of a connection: steps in order, each with the entries that belong to it.
 *
 * The journal joins entries by ids. An invocation belongs to the handshake or message with the same request id of API
 * Gateway. A log line, an AWS call and a trace belong to the invocation with which they share the most ids.
 */

import type { Entry } from "./api";
import { type End, explainEnd } from "./end";
import { type Facts, shorten, toNumber, toText } from "./json";
import { findReason, type Reason } from "./reasons";
import {
  describeEntry,
  describeError,
  findFrameError,
  getDocument,
  isAuthorizer,
  makeEndTitle,
  makeHandshakeTitle,
  makeMessageTitle,
  nameCaller,
  type Tone,
} from "./sentences";

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

const SAME_CALL_SECONDS = 1;

interface Draft {
  readonly key: string;
  readonly at: number;
  readonly head: Entry;
  readonly rows: Row[];
}

export function buildTimeline(connectionId: string, entries: readonly Entry[]): Timeline {
  const ordered = entries
    .map((entry) => ({ entry, at: findStart(entry) }))
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
  const makeRow = createRowMaker();
  const drafts: Draft[] = [];
  const byRequest = new Map<string, Draft>();
  const listOtherKeys = (entry: Entry) => entry.keys.filter((key) => key !== connectionId);
  const beginStep = (entry: Entry, row: Row): Draft => {
    const draft = { key: row.key, at: row.at, head: entry, rows: [row] };
    drafts.push(draft);
    return draft;
  };

  // A handshake, a message and the end of the connection begin a step.
  const rest: Entry[] = [];
  for (const entry of entries) {
    if (entry.kind === "handshake" || entry.kind === "message" || entry.kind === "end") {
      const draft = beginStep(entry, makeRow(entry));
      for (const key of listOtherKeys(entry)) {
        byRequest.set(key, draft);
      }
    } else {
      rest.push(entry);
    }
  }
  const end = drafts.find(({ head }) => head.kind === "end");
  const handshake = drafts.find(({ head }) => head.kind === "handshake");
  const findStep = (entry: Entry) =>
    listOtherKeys(entry)
      .map((key) => byRequest.get(key))
      .find((draft) => draft !== undefined);

  /** Add a row to `rows`, or begin a step with it if there are none. Return the rows that it was added to. */
  const attach = (row: Row, rows: Row[] | undefined): Row[] => {
    rows?.push(row);
    return rows ?? beginStep(row.entry, row).rows;
  };

  // An invocation belongs to the step of its request.
  const invocations: Row[] = [];
  const byKey = new Map<string, Row[]>();
  for (const entry of rest.filter(({ kind }) => kind === "invocation")) {
    const row = makeRow(entry);
    const step = findStep(entry) ?? (entry.facts.purpose === "$disconnect" ? end : undefined);
    attach(row, step?.rows);
    invocations.push(row);
    for (const key of listOtherKeys(entry)) {
      const sharing = byKey.get(key) ?? [];
      sharing.push(row);
      byKey.set(key, sharing);
    }
  }

  // Other entries belong to an invocation, to a step, or only to the connection.
  const running = new RunningInvocations(invocations);
  const traces = new Map<string, Row>();
  let lastCall: { at: number; rows: Row[] } | undefined; // of @connections
  for (const entry of rest.filter(({ kind }) => kind !== "invocation")) {
    const trace = entry.kind === "trace" ? traces.get(getTraceKey(entry)) : undefined;
    if (trace) {
      trace.documents?.push(getDocument(entry.facts));
      continue;
    }
    const row = makeRow(entry);
    switch (entry.kind) {
      case "trace":
        traces.set(getTraceKey(entry), row);
        attach(row, findOwner(listOtherKeys(entry), byKey)?.children);
        break;
      case "log":
      case "call":
        attach(row, findOwner(listOtherKeys(entry), byKey)?.children ?? findStep(entry)?.rows);
        break;
      case "management":
        lastCall = {
          at: entry.at,
          rows: attach(row, (findOwner(listOtherKeys(entry), byKey) ?? running.find(entry))?.children),
        };
        break;
      case "frame": {
        // A frame that a call of @connections sent belongs beside the call.
        const isSentByCall =
          entry.facts.from === "@connections" && lastCall && entry.at - lastCall.at < SAME_CALL_SECONDS;
        attach(row, findStep(entry)?.rows ?? (isSentByCall ? lastCall?.rows : undefined));
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
function createRowMaker(): (entry: Entry) => Row {
  const seen = new Map<string, number>();
  return (entry) => {
    const name = `${entry.kind} ${entry.at} ${entry.keys.join(" ")}`;
    const count = seen.get(name) ?? 0;
    seen.set(name, count + 1);
    const row: Row = { key: `${name} ${count}`, entry, at: findStart(entry), children: [] };
    return entry.kind === "trace" ? { ...row, documents: [getDocument(entry.facts)] } : row;
  };
}

/** Return when an entry begins. An invocation and a trace are recorded when they end. */
function findStart({ at, kind, facts }: Entry): number {
  return toNumber(kind === "trace" ? getDocument(facts).start_time : facts.startedAt) ?? at;
}

function sortRows(rows: Row[]): void {
  const isLast = (row: Row) => Number(row.entry.kind === "trace");
  rows.sort((one, other) => isLast(one) - isLast(other) || one.at - other.at);
  for (const row of rows) {
    sortRows(row.children);
  }
}

/** Return the invocation that shares the most ids; if there are several, the last of them. */
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

function getTraceKey(entry: Entry): string {
  return toText(getDocument(entry.facts).trace_id) ?? entry.keys.join(" ");
}

function finishStep({ key, at, head, rows }: Draft): Step {
  const all = [...walk(rows)];
  const { text, tone } = makeStepTitle(head, at, all);
  const reason = findReason(head, all);
  const isRepeated = reason && text.endsWith(`: ${shorten(reason.text)}`);
  return { key, at, title: text, tone, reason: isRepeated ? undefined : reason, rows };
}

function makeStepTitle(head: Entry, at: number, rows: readonly Row[]): { text: string; tone: Tone } {
  switch (head.kind) {
    case "handshake":
      return makeHandshakeTitle(rows.find(({ entry }) => entry.kind === "decision")?.entry.facts);
    case "message": {
      const invocation = rows.find(({ entry }) => entry.kind === "invocation");
      const failure = rows.find(({ entry }) => entry.kind === "frame" && findFrameError(entry.facts) !== undefined);
      const error =
        (invocation && describeError(invocation.entry.facts)) ?? (failure && findFrameError(failure.entry.facts));
      const endedAt = toNumber(head.facts.endedAt) ?? (invocation && toNumber(invocation.entry.facts.endedAt));
      const duration = endedAt === undefined ? undefined : Math.max(0, endedAt - at);
      return makeMessageTitle(head.facts, {
        duration,
        error,
        isRunning: invocation !== undefined && endedAt === undefined,
      });
    }
    case "end":
      return makeEndTitle(head.facts);
    default: {
      const title = Object.hasOwn(OTHER_TITLES, head.kind) ? OTHER_TITLES[head.kind] : undefined;
      return { text: title ?? shorten(head.kind), tone: describeEntry(head).tone };
    }
  }
}

/** Titles of steps that begin with another entry than a handshake, a message or an end. */
const OTHER_TITLES: Record<string, string> = {
  invocation: "Invocation",
  decision: "Decision about the handshake",
  frame: "Push to the client",
  management: "Call of @connections",
  call: "AWS call",
  log: "Log line",
  trace: "Trace",
};

/** Yield the rows and all their descendants. */
export function* walk(rows: readonly Row[]): Generator<Row> {
  for (const row of rows) {
    yield row;
    yield* walk(row.children);
  }
}
