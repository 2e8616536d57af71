/** The stream of changes, which connects again by itself. */

import { type Connection, EVENTS_URL, parseConnections } from "./api";
import { parseObject } from "./json";

/**
 * - `connecting`: the first attempt.
 * - `live`: changes arrive.
 * - `lost`: nobody answers, so the local run has ended; attempts go on.
 * - `paused`: the reader wants the page to stand still.
 */
export type StreamState = "connecting" | "live" | "lost" | "paused";

const FIRST_DELAY_MS = 1000;
const MAX_DELAY_MS = 8000;

export interface LiveEventsOptions {
  onState(state: StreamState): void;
  onChange(connections: readonly Connection[]): void;
}

/**
 * Server-sent events with reconnect.
 *
 * EventSource gives up at an HTTP error, and browsers differ at a refused connection. So each attempt is a new one.
 */
export class LiveEvents {
  private source: EventSource | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private delay = FIRST_DELAY_MS;

  constructor(private readonly options: LiveEventsOptions) {}

  /** Connect now, also in place of a later attempt. */
  connect(): void {
    this.close();
    const source = new EventSource(EVENTS_URL);
    this.source = source;
    source.onopen = () => {
      this.delay = FIRST_DELAY_MS;
      this.options.onState("live");
    };
    source.addEventListener("connections", ({ data }) => {
      this.options.onChange(parseConnections(parseObject(data).connections));
    });
    source.onerror = () => {
      this.close();
      this.options.onState("lost");
      this.timer = setTimeout(() => this.connect(), this.delay);
      this.delay = Math.min(this.delay * 2, MAX_DELAY_MS);
    };
  }

  /** Close the stream and stop trying. */
  close(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = undefined;
  }
}
