/**
 * Simulate a reconnect storm: a gateway restarts, and every client loses its connection in the same instant.
 *
 * The model:
 * - Time passes in steps of a millisecond and starts with the loss of the connections.
 * - An attempt reaches the gateway after half a round trip; the client knows the answer after a whole one.
 *   A round trip takes 30 to 90 ms, drawn for each.
 * - During the outage the gateway refuses every attempt. After it, an accepted attempt takes a token from a bucket; the
 *   bucket starts full. A refused attempt takes none. An accepted connection stays.
 * - Cognito works all the time and has a bucket of its own. Amplify calls it up to three times for one refresh. When all
 *   three calls are throttled, the client continues with its token, which is still valid.
 */

import { computeRetryDelay, SUSPEND_AFTER_FAILURES } from "../src/backoff";

const SECOND = 1_000;
const HORIZON = 3_600 * SECOND;

/** API Gateway's quota of new connections a second, and the assumed size of its bucket: AWS does not publish it. */
export const CONNECTION_RATE = 500;
export const CONNECTION_BURST = 500;

/** Cognito's quota of token refreshes a second. */
export const REFRESH_RATE = 120;
const REFRESH_CALLS = 3;

/** A random number of at least 0 and less than 1. */
type Random = () => number;

export interface Policy {
  readonly name: string;
  /** Start a client. Return a function that returns its delay in milliseconds after a number of failures in a row. */
  startClient(random: Random): (failures: number) => number;
  /** The token is refreshed once, before the attempt that follows this many failures. */
  readonly refreshAfterFailures?: number;
}

/** Create this project's policy. All tokens were accepted before the outage, so they are refreshed when suspended. */
export function createOwnPolicy(refreshAfterFailures: number = SUSPEND_AFTER_FAILURES): Policy {
  return {
    name: "This project",
    startClient: (random) => (failures) => computeRetryDelay(failures, random),
    refreshAfterFailures,
  };
}

/** The sample's page: it reconnects as soon as the connection is closed. */
const NO_DELAY: Policy = { name: "No delay", startClient: () => () => 0 };

/** Chromium delays the sockets of a page whose attempts fail: services/network/websocket_throttler.cc. */
const NO_DELAY_IN_CHROMIUM: Policy = {
  name: "No delay, in Chromium",
  startClient: (random) => (failures) => ((1 + 4 * random()) * SECOND * 2 ** Math.min(failures, 16)) / 65_536,
};

/** Since 1.1.19 the first delay is 3 s for everyone, although the package's README says that it is random. */
const PARTYSOCKET: Policy = { name: "partysocket 1.3", startClient: () => createGrowingDelay(3 * SECOND) };

const PARTYSOCKET_WITH_RANDOM_START: Policy = {
  name: "partysocket 1.1.18",
  startClient: (random) => createGrowingDelay((1 + 4 * random()) * SECOND),
};

function createGrowingDelay(firstDelay: number): (failures: number) => number {
  return (failures) => Math.min(10 * SECOND, firstDelay * 1.3 ** failures);
}

export const POLICIES: readonly Policy[] = [
  createOwnPolicy(),
  NO_DELAY,
  NO_DELAY_IN_CHROMIUM,
  PARTYSOCKET,
  PARTYSOCKET_WITH_RANDOM_START,
];

export interface Storm {
  readonly clients: number;
  /** New connections that the gateway accepts a second. */
  readonly rate: number;
  readonly outageSeconds: number;
  readonly seed: number;
}

export interface Outcome {
  readonly policy: Policy;
  readonly storm: Storm;
  /** When the gateway accepted a connection, in milliseconds. */
  readonly acceptedAt: readonly number[];
  /** When a client was connected, in milliseconds. */
  readonly connectedAt: readonly number[];
  /** Attempts that reached the gateway in each second. */
  readonly attempts: readonly number[];
  /** Calls that reached Cognito in each second. */
  readonly refreshCalls: readonly number[];
  /** Calls that Cognito throttled in each second. */
  readonly throttledCalls: readonly number[];
}

export function simulate(policy: Policy, storm: Storm): Outcome {
  const { clients, rate, outageSeconds, seed } = storm;
  const random = mulberry32(seed);
  const gateway = new TokenBucket(rate, CONNECTION_BURST);
  const cognito = new TokenBucket(REFRESH_RATE, REFRESH_RATE);
  const acceptedAt: number[] = [];
  const connectedAt: number[] = [];
  const attempts: number[] = [];
  const refreshCalls: number[] = [];
  const throttledCalls: number[] = [];
  let now = 0;

  /** Run one client. Yield the milliseconds until its next step. */
  function* reconnect(): Generator<number, void> {
    const delay = policy.startClient(random);
    for (let failures = 0; ; failures += 1) {
      yield delay(failures);
      if (failures === policy.refreshAfterFailures) {
        yield* refresh();
      }
      const halfRoundTrip = 15 + 30 * random();
      yield halfRoundTrip;
      countSecond(attempts, now);
      const isAccepted = now >= outageSeconds * SECOND && gateway.take(now);
      if (isAccepted) {
        acceptedAt.push(now);
      }
      yield halfRoundTrip;
      if (isAccepted) {
        connectedAt.push(now);
        return;
      }
    }
  }

  /** Refresh the token as `fetchAuthSession({ forceRefresh: true })` of Amplify 6 does. */
  function* refresh(): Generator<number, void> {
    for (let call = 1; call <= REFRESH_CALLS; call += 1) {
      const halfRoundTrip = 15 + 30 * random();
      yield halfRoundTrip;
      countSecond(refreshCalls, now);
      const isThrottled = !cognito.take(now);
      yield halfRoundTrip;
      if (!isThrottled) {
        return;
      }
      countSecond(throttledCalls, now);
      if (call < REFRESH_CALLS) {
        yield 100 * 2 ** call + 100 * random();
      }
    }
  }

  /** The clients that take a step at each millisecond. */
  const schedule: Generator<number, void>[][] = [Array.from({ length: clients }, reconnect)];
  for (; now < schedule.length && now < HORIZON; now += 1) {
    for (const client of schedule[now] ?? []) {
      const step = client.next();
      if (!step.done) {
        const time = now + Math.round(step.value);
        schedule[time] ??= [];
        schedule[time].push(client); // if `time` is now, this loop reaches the client again
      }
    }
    schedule[now] = [];
  }
  return { policy, storm, acceptedAt, connectedAt, attempts, refreshCalls, throttledCalls };
}

function countSecond(counts: number[], now: number): void {
  const second = Math.floor(now / SECOND);
  while (counts.length <= second) {
    counts.push(0);
  }
  counts[second] = (counts[second] ?? 0) + 1;
}

class TokenBucket {
  #tokens: number;
  #filledAt = 0;

  constructor(
    private readonly rate: number,
    private readonly burst: number,
  ) {
    this.#tokens = burst;
  }

  /** Take a token, and return whether there was one. */
  take(now: number): boolean {
    this.#tokens = Math.min(this.burst, this.#tokens + ((now - this.#filledAt) * this.rate) / SECOND);
    this.#filledAt = now;
    if (this.#tokens < 1) {
      return false;
    }
    this.#tokens -= 1;
    return true;
  }
}

/** Tommy Ettinger's mulberry32, a small generator that can be seeded. */
function mulberry32(seed: number): Random {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
