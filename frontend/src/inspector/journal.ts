/** The state of the inspector: the list of connections, one timeline, and whether updates arrive. */

import { ApiError, type Connection, type ConnectionPage, type Entry, fetchConnections, fetchTimeline } from "./api";
import { LiveEvents, type StreamState } from "./live-events";
import { chooseConnection } from "./route";

/** Why a request failed: the server does not know the connection, is not an inspector, or cannot be reached. */
export type Problem = "unknown" | "no journal" | "unreachable";

export interface ListState extends ConnectionPage {
  /** The search that `connections` match; undefined before the first answer. */
  readonly search: string | undefined;
  readonly problem: Problem | undefined;
}

export interface TimelineState {
  readonly id: string;
  /** undefined before the first answer. Entries stay when the local run has ended. */
  readonly entries: readonly Entry[] | undefined;
  readonly problem: Problem | undefined;
}

export interface JournalState {
  readonly stream: StreamState;
  /** When the server sent something last, in Unix seconds. */
  readonly lastLiveAt: number | undefined;
  readonly list: ListState;
  readonly timeline: TimelineState | undefined;
}

/** The minimum time between two refreshes of the list after changes, and between two of the timeline. */
export const REFRESH_MS = 1000;

const INITIAL: JournalState = {
  stream: "connecting",
  lastLiveAt: undefined,
  list: { search: undefined, connections: [], total: 0, problem: undefined },
  timeline: undefined,
};

export class Journal {
  private state = INITIAL;
  private readonly listeners = new Set<() => void>();
  private readonly events = new LiveEvents({
    onState: (stream) => this.changeStream(stream),
    onChange: (connections) => this.merge(connections),
  });
  private search = "";
  private listRequests = 0;
  private readonly refreshList = new Throttle(() => this.loadList());
  private readonly refreshTimeline = new Throttle(() => this.loadTimeline());

  readonly getState = (): JournalState => this.state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  start(): void {
    this.events.connect();
  }

  /** Close the stream, because the tab is hidden: browsers allow six connections to one server. */
  stop(): void {
    this.events.close();
  }

  pause(): void {
    this.events.close();
    this.set({ stream: "paused" });
  }

  resume(): void {
    this.set({ stream: "connecting" });
    this.events.connect();
  }

  /** Load the connections that match. */
  setSearch(search: string): void {
    if (search !== this.search || this.state.list.search === undefined) {
      this.search = search;
      void this.loadList();
    }
  }

  /** Search, and return the id of the connection to open, if any. */
  async find(search: string): Promise<string | undefined> {
    this.search = search;
    const page = await this.loadList();
    return page && chooseConnection(search, page);
  }

  /** Show the timeline of a connection. */
  openTimeline(id: string): void {
    if (this.state.timeline?.id !== id) {
      this.set({ timeline: { id, entries: undefined, problem: undefined } });
      void this.loadTimeline();
    }
  }

  closeTimeline(): void {
    this.set({ timeline: undefined });
  }

  private changeStream(stream: StreamState): void {
    this.set({ stream, ...(stream === "live" && { lastLiveAt: Date.now() / 1000 }) });
    if (stream === "live") {
      // The stream does not contain earlier changes.
      void this.loadList();
      void this.loadTimeline();
    }
  }

  /** Replace changed connections in the list, and refresh what the change may affect. */
  private merge(changed: readonly Connection[]): void {
    this.set({ lastLiveAt: Date.now() / 1000 });
    const { list, timeline } = this.state;
    const byId = new Map(changed.map((connection) => [connection.id, connection]));
    const connections = list.connections.map((connection) => byId.get(connection.id) ?? connection);
    if (connections.some((connection, index) => connection !== list.connections[index])) {
      this.set({ list: { ...list, connections } });
    }
    const known = new Set(list.connections.map(({ id }) => id));
    // Only the server knows whether another connection matches the search, and how many there are.
    if (changed.some(({ id }) => !known.has(id))) {
      this.refreshList.request();
    }
    if (timeline && byId.has(timeline.id)) {
      this.refreshTimeline.request();
    }
  }

  private async loadList(): Promise<ConnectionPage | undefined> {
    const { search } = this;
    this.listRequests += 1;
    const request = this.listRequests;
    const isLatest = () => request === this.listRequests;
    try {
      const page = await fetchConnections(search);
      if (isLatest()) {
        this.set({ list: { ...page, search, problem: undefined } });
      }
      return page;
    } catch (error) {
      if (isLatest()) {
        const problem = error instanceof ApiError ? "no journal" : "unreachable";
        this.set({ list: { ...this.state.list, search, problem } });
      }
      return undefined;
    }
  }

  private async loadTimeline(): Promise<void> {
    const id = this.state.timeline?.id;
    if (id === undefined) {
      return;
    }
    const answer = await fetchTimeline(id).then(
      (entries) => ({ entries, problem: undefined }),
      (error: unknown) => ({ problem: classifyTimelineError(error) }),
    );
    const { timeline } = this.state;
    if (timeline?.id === id) {
      this.set({ timeline: { ...timeline, ...answer } });
    }
  }

  private set(change: Partial<JournalState>): void {
    this.state = { ...this.state, ...change };
    for (const listener of this.listeners) {
      listener();
    }
  }
}

function classifyTimelineError(error: unknown): Problem {
  if (!(error instanceof ApiError)) {
    return "unreachable";
  }
  return error.status === 404 ? "unknown" : "no journal";
}

/** Runs a task at once. Waits REFRESH_MS before the next run, or three times the task's duration if that is longer. */
class Throttle {
  private isBusy = false;
  private isRequested = false;

  constructor(private readonly task: () => Promise<unknown>) {}

  request(): void {
    this.isRequested = true;
    if (!this.isBusy) {
      void this.run();
    }
  }

  private async run(): Promise<void> {
    this.isBusy = true;
    while (this.isRequested) {
      this.isRequested = false;
      const started = Date.now();
      await this.task();
      const pause = Math.max(REFRESH_MS, 3 * (Date.now() - started));
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
    this.isBusy = false;
  }
}
