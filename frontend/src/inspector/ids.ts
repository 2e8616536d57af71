/** The ids of an entry, by which a reader can search. */

import type { Entry } from "./api";
import { toText } from "./json";
import type { Row } from "./timeline";

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

/** Return the trace id of a row, with which its trace can be downloaded. */
export function findTraceId({ entry, documents }: Row): string | undefined {
  return toText(documents?.[0]?.trace_id) ?? entry.keys.find((key) => TRACE_ID.test(key));
}
