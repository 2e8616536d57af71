/**
 * The layout of a trace's waterfall.
 *
 * https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
 */

import { type Facts, isObject, toList, toNumber, toObject, toText } from "./json";

/** A segment or subsegment of a trace. */
export interface Span {
  readonly id: string;
  readonly name: string;
  /** 0 for a span without a known parent. */
  readonly depth: number;
  /** Seconds after the start of the trace. */
  readonly start: number;
  /** undefined while the span is in progress. */
  readonly duration: number | undefined;
  readonly hasFailed: boolean;
  /** What else is known of the span: an operation, an HTTP status, an error. */
  readonly note: string | undefined;
  /** The bar, in percent of the trace's duration. */
  readonly bar: { readonly left: number; readonly width: number };
}

export interface Waterfall {
  readonly spans: readonly Span[];
  /** Seconds from the first start to the last end. */
  readonly duration: number;
}

const MIN_WIDTH = 0.5; // percent, so that a short span can be seen

interface Segment {
  readonly id: string;
  readonly parentId: string | undefined;
  readonly start: number;
  readonly end: number | undefined;
  readonly document: Facts;
}

/** Lay out the segments of a trace: each parent before its children, children by their start. */
export function layOut(documents: readonly unknown[]): Waterfall {
  const segments = collectSegments(documents);
  const all = [...segments.values()];
  const first = all.reduce((earliest, { start }) => Math.min(earliest, start), Number.POSITIVE_INFINITY);
  const last = all.reduce((latest, { start, end }) => Math.max(latest, end ?? start), first);
  const duration = all.length === 0 ? 0 : last - first;

  const children = groupByParent(all, segments);
  const spans: Span[] = [];
  const placed = new Set<string>();
  const place = (segment: Segment, depth: number) => {
    if (placed.has(segment.id)) {
      return; // its parents form a cycle
    }
    placed.add(segment.id);
    spans.push(makeSpan(segment, depth, first, duration));
    for (const child of children.get(segment.id) ?? []) {
      place(child, depth + 1);
    }
  };
  for (const root of children.get(undefined) ?? []) {
    place(root, 0);
  }
  for (const segment of all) {
    place(segment, 0); // only segments of a cycle are left
  }
  return { spans, duration };
}

function collectSegments(documents: readonly unknown[]): Map<string, Segment> {
  const segments = new Map<string, Segment>();
  const add = (value: unknown, enclosing: string | undefined) => {
    const document = toObject(value);
    const id = toText(document.id);
    const start = toNumber(document.start_time);
    if (id === undefined || start === undefined) {
      return;
    }
    const end = toNumber(document.end_time);
    const known = segments.get(id);
    // The SDK may send a segment twice: in progress, then complete.
    if (known === undefined || known.end === undefined) {
      segments.set(id, {
        id,
        parentId: enclosing ?? toText(document.parent_id),
        start,
        end: end === undefined ? undefined : Math.max(start, end),
        document,
      });
    }
    for (const subsegment of toList(document.subsegments)) {
      add(subsegment, id);
    }
  };
  for (const document of documents) {
    add(document, undefined);
  }
  return segments;
}

function groupByParent(all: readonly Segment[], known: ReadonlyMap<string, Segment>) {
  const children = new Map<string | undefined, Segment[]>();
  for (const segment of all) {
    const { id, parentId } = segment;
    const parent = parentId !== undefined && parentId !== id && known.has(parentId) ? parentId : undefined;
    children.set(parent, [...(children.get(parent) ?? []), segment]);
  }
  for (const siblings of children.values()) {
    siblings.sort((one, other) => one.start - other.start);
  }
  return children;
}

function makeSpan({ id, start, end, document }: Segment, depth: number, first: number, duration: number): Span {
  const toPercent = (seconds: number) => (duration > 0 ? (seconds / duration) * 100 : 0);
  const width = duration > 0 ? toPercent((end ?? first + duration) - start) : 100;
  const shown = Math.min(100, Math.max(MIN_WIDTH, width));
  return {
    id,
    name: toText(document.name) ?? id,
    depth,
    start: start - first,
    duration: end === undefined ? undefined : end - start,
    hasFailed: document.error === true || document.fault === true || document.throttle === true,
    note: describeNote(document),
    bar: { left: Math.min(toPercent(start - first), 100 - shown), width: shown },
  };
}

function describeNote(document: Facts): string | undefined {
  const aws = toObject(document.aws);
  const status = toNumber(toObject(toObject(document.http).response).status);
  const exception = toList(toObject(document.cause).exceptions).find(isObject);
  const notes = [
    toText(document.origin),
    toText(aws.operation),
    status === undefined ? undefined : `HTTP ${status}`,
    exception && [toText(exception.type), toText(exception.message)].filter(Boolean).join(": "),
    ...Object.entries(toObject(document.annotations)).map(([name, value]) => `${name}: ${String(value)}`),
  ];
  return notes.filter(Boolean).join(", ") || undefined;
}
