/** A client of the inspector's HTTP API. Its URLs are relative, so that the page works behind any path. */

import { type Facts, isObject, toList, toNumber, toObject, toText } from "./json";

/** A connection in the list. Times are Unix seconds. */
export interface Connection {
  readonly id: string;
  readonly userId: string | undefined;
  readonly openedAt: number;
  readonly endedAt: number | undefined;
  /** HTTP status of the handshake; undefined until it is decided. */
  readonly status: number | undefined;
  readonly cause: string | undefined;
  readonly messages: number;
  readonly errors: number;
}

export interface ConnectionPage {
  /** The newest first, up to the server's limit. */
  readonly connections: readonly Connection[];
  /** How many match the search. */
  readonly total: number;
}

/** One step of the journal. */
export interface Entry {
  /** Unix seconds. */
  readonly at: number;
  readonly kind: string;
  /** Ids that join entries: connection, requests, trace, user. */
  readonly keys: readonly string[];
  readonly facts: Facts;
}

export const EVENTS_URL = "api/events";

export function makeTraceUrl(traceId: string): string {
  return `api/traces/${encodeURIComponent(traceId)}`;
}

/** The server answered with an error, or without a JSON object. */
export class ApiError extends Error {
  override readonly name = "ApiError";

  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export async function fetchConnections(search: string, signal?: AbortSignal): Promise<ConnectionPage> {
  const answer = await fetchObject(`api/connections?search=${encodeURIComponent(search)}`, signal);
  const connections = parseConnections(answer.connections);
  return { connections, total: Math.max(toNumber(answer.total) ?? 0, connections.length) };
}

export async function fetchTimeline(id: string, signal?: AbortSignal): Promise<readonly Entry[]> {
  const answer = await fetchObject(`api/connections/${encodeURIComponent(id)}`, signal);
  return toList(answer.entries).flatMap(parseEntry);
}

export function parseConnections(value: unknown): readonly Connection[] {
  return toList(value).flatMap((item) => {
    const { id, userId, openedAt, endedAt, status, cause, messages, errors } = toObject(item);
    const identifier = toText(id);
    return identifier === undefined
      ? []
      : {
          id: identifier,
          userId: toText(userId),
          openedAt: toNumber(openedAt) ?? 0,
          endedAt: toNumber(endedAt),
          status: toNumber(status),
          cause: toText(cause),
          messages: toNumber(messages) ?? 0,
          errors: toNumber(errors) ?? 0,
        };
  });
}

export function parseEntry(value: unknown): Entry[] {
  const { at, kind, keys, facts } = toObject(value);
  const time = toNumber(at);
  return time === undefined || typeof kind !== "string"
    ? []
    : [{ at: time, kind, keys: toList(keys).filter((key) => typeof key === "string"), facts: toObject(facts) }];
}

async function fetchObject(url: string, signal: AbortSignal | undefined): Promise<Facts> {
  const response = await fetch(url, { ...(signal && { signal }), headers: { Accept: "application/json" } });
  const answer: unknown = response.ok ? await response.json().catch(() => undefined) : undefined;
  if (!isObject(answer)) {
    throw new ApiError(response.status, `${url} answered ${response.status} without a JSON object.`);
  }
  return answer;
}
