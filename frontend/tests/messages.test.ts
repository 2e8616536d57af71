import { describe, expect, it } from "vitest";
import type { SentMessage } from "../src/connection";
import type { Frame } from "../src/frames";
import { addMessage, MAX_ENTRIES, type Messages, type MessageUpdate, NO_MESSAGES } from "../src/messages";

const PUSH: Frame = { kind: "push", text: "news" };

function sent(id: number, state: SentMessage["state"], roundTripMs?: number): MessageUpdate {
  return { kind: "sent", at: 1000 * id, message: { id, text: `text ${id}`, state, sentAt: 0, roundTripMs } };
}

function received(frame: Frame): MessageUpdate {
  return { kind: "received", at: 0, frame };
}

function summarize({ entries }: Messages): string[] {
  return entries.map((entry) =>
    entry.kind === "received" ? entry.frame.kind : `${entry.kind} ${entry.message.id} ${entry.message.state}`,
  );
}

describe("the message list", () => {
  it("shows a message once, in its newest state", () => {
    const messages = [sent(1, "queued"), sent(1, "sent"), sent(1, "unconfirmed")].reduce(addMessage, NO_MESSAGES);
    expect(summarize(messages)).toEqual(["sent 1 unconfirmed"]);
  });

  it("shows an echo at the time when it came, with its round trip", () => {
    const updates = [sent(1, "sent"), sent(2, "sent"), received(PUSH), sent(1, "echoed", 12)];
    const messages = updates.reduce(addMessage, NO_MESSAGES);
    expect(summarize(messages)).toEqual(["sent 1 echoed", "sent 2 sent", "push", "echo 1 echoed"]);
    expect(messages.entries.at(-1)).toMatchObject({ message: { roundTripMs: 12 } });
  });

  it("keeps the time at which a message was added", () => {
    const later = { ...sent(1, "sent"), at: 9999 };
    expect([sent(1, "queued"), later].reduce(addMessage, NO_MESSAGES).entries[0]?.at).toBe(1000);
  });

  it("keeps unchanged entries as the same objects", () => {
    const before = [sent(1, "sent"), sent(2, "sent")].reduce(addMessage, NO_MESSAGES);
    expect(addMessage(before, sent(2, "refused")).entries[0]).toBe(before.entries[0]);
  });

  it("gives every entry a key of its own", () => {
    const updates = [sent(1, "sent"), received(PUSH), sent(1, "echoed"), received(PUSH)];
    const keys = updates.reduce(addMessage, NO_MESSAGES).entries.map(({ key }) => key);
    expect(new Set(keys).size).toBe(4);
  });

  it("drops its oldest entries, and does not show them again when they change", () => {
    let messages = addMessage(NO_MESSAGES, sent(1, "sent"));
    for (let count = 0; count < MAX_ENTRIES; count += 1) {
      messages = addMessage(messages, received(PUSH));
    }
    messages = addMessage(messages, sent(1, "unconfirmed"));
    expect(messages.entries).toHaveLength(MAX_ENTRIES);
    expect(messages.entries.every(({ kind }) => kind === "received")).toBe(true);
  });
});
