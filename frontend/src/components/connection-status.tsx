import { useEffect, useState } from "react";
import { SUSPEND_AFTER_FAILURES } from "../backoff";
import { type Config, isLocal } from "../config";
import type { Status } from "../connection";
import { describeReason, STATE_TEXT } from "../status-text";

/** After this many failures in a row, show where to find the reason. */
const FAILURES_BEFORE_HINT = 3;

interface ConnectionStatusProps {
  config: Config;
  status: Status;
  onRetry(): void;
  onSignIn(): void;
}

/** The connection's state, the reason for it, and what can be done. */
export function ConnectionStatus({ config, status, onRetry, onSignIn }: ConnectionStatusProps) {
  const { state, reason, retryAt, failures } = status;
  // Keep the button during the attempt, so that it keeps the focus.
  const isRetrying = state === "connecting" && reason !== undefined;
  // A suspended connection stays suspended here, so that a screen reader does not announce each attempt.
  const shownState = isRetrying && failures >= SUSPEND_AFTER_FAILURES ? "suspended" : state;
  return (
    <section className="status" data-state={shownState} aria-label="Connection">
      <div role="status">
        <p className="state">{STATE_TEXT[shownState]}</p>
        {reason && (
          <p className="detail">
            {describeReason(reason, config)}
            {reason.kind === "not_opened" && failures >= FAILURES_BEFORE_HINT && <LogHint config={config} />}
          </p>
        )}
      </div>
      {!reason && (
        <p className="detail">
          <code>{config.webSocketEndpoint}</code>
        </p>
      )}
      <p className="countdown">{retryAt !== undefined && <Countdown until={retryAt} />}</p>
      <div className="action">
        {(retryAt !== undefined || isRetrying) && (
          <button type="button" className="secondary" aria-disabled={isRetrying} onClick={onRetry}>
            Retry now
          </button>
        )}
        {state === "failed" && (
          <button type="button" className="primary" onClick={onSignIn}>
            Sign in
          </button>
        )}
      </div>
    </section>
  );
}

function LogHint({ config }: { config: Config }) {
  return isLocal(config) ? (
    <>
      {" "}
      Browsers do not report the reason. Look at the terminal where <code>make up</code> runs.
    </>
  ) : (
    <>
      {" "}
      Browsers do not report the reason. Look at the log group <code>{config.authorizerLogGroup}</code>.
    </>
  );
}

/** The seconds until the next attempt. Place it outside the live region: otherwise every second is announced. */
function Countdown({ until }: { until: number }) {
  const [seconds, setSeconds] = useState(() => countSecondsUntil(until));
  useEffect(() => {
    const update = () => setSeconds(countSecondsUntil(until));
    update();
    const timer = setInterval(update, 250);
    return () => clearInterval(timer);
  }, [until]);
  return <>Next attempt in {seconds} s</>;
}

function countSecondsUntil(time: number): number {
  return Math.max(0, Math.ceil((time - Date.now()) / 1000));
}
