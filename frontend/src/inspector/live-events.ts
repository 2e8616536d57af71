/** The stream of changed connections, which reconnects by itself. */

import { type Connection, EVENTS_URL, parseConnections } from "./api";
import { parseObject } from "./json";

/**
 * - `connecting`: the first attempt.
 * - `live`: changes arrive.
 * - `lost`: the server does not answer, because the local run has ended; it keeps retrying.
 * - `paused`: the reader has paused the updates.
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
 * EventSource does not reconnect after an HTTP error, and browsers differ after a refused connection. So each attempt
 * creates a new EventSource.
 */
export class LiveEvents {
  private source: EventSource | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private delay = FIRST_DELAY_MS;

  constructor(private readonly options: LiveEventsOptions) {}

  /** Connect now, and cancel the next scheduled attempt. */
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

  /** Close the stream and stop retrying. */
  close(): void {
    clearTimeout(this.timer);
    this.source?.close();
    this.source = undefined;
  }
}
