/**
 * The list of messages: what was sent, each echo, pushes and error frames.
 *
 * A push can appear twice: while the connection is being replaced, it arrives on both sockets.
 */

import type { SentMessage } from "./connection";
import type { Frame } from "./frames";

export type Entry = { readonly key: number; readonly at: number } & (
  | { readonly kind: "sent"; readonly message: SentMessage }
  | { readonly kind: "echo"; readonly message: SentMessage }
  | { readonly kind: "received"; readonly frame: Frame }
);

export interface Messages {
  readonly entries: readonly Entry[];
  /** Keys and ids only increase, so that an update of a dropped entry is not mistaken for a new entry. */
  readonly lastKey: number;
  readonly lastSentId: number;
}

/** `at`: when it happened, in milliseconds since the epoch. */
export type MessageUpdate = { readonly at: number } & (
  | { readonly kind: "sent"; readonly message: SentMessage }
  | { readonly kind: "received"; readonly frame: Frame }
);

export const NO_MESSAGES: Messages = { entries: [], lastKey: 0, lastSentId: 0 };
export const MAX_ENTRIES = 500;

export function addMessage(messages: Messages, update: MessageUpdate): Messages {
  if (update.kind === "received") {
    return append(messages, update);
  }
  const { at, message } = update;
  const updated =
    message.id > messages.lastSentId
      ? { ...append(messages, update), lastSentId: message.id }
      : {
          ...messages,
          entries: messages.entries.map((entry) => (isSentEntry(entry, message) ? { ...entry, message } : entry)),
        };
  return message.state === "echoed" ? append(updated, { kind: "echo", at, message }) : updated;
}

function append(messages: Messages, entry: DistributiveOmit<Entry, "key">): Messages {
  const key = messages.lastKey + 1;
  return { ...messages, entries: [...messages.entries, { ...entry, key }].slice(-MAX_ENTRIES), lastKey: key };
}

function isSentEntry(entry: Entry, message: SentMessage): boolean {
  return entry.kind === "sent" && entry.message.id === message.id;
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;
