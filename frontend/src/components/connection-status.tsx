import { useEffect, useState } from "react";
import { SUSPEND_AFTER_FAILURES } from "../backoff";
import { type Config, isLocal } from "../config";
import type { Status } from "../connection";
import { describeReason, STATE_TEXT } from "../status-text";

/** After so many failures in a row the user is told where to look. */
const REPEATED = 3;

interface ConnectionStatusProps {
  config: Config;
  status: Status;
  onRetry(): void;
  onSignIn(): void;
}

/** The connection's state, the reason for it, and what can be done. */
export function ConnectionStatus({ config, status, onRetry, onSignIn }: ConnectionStatusProps) {
  const { state, reason, retryAt, failures } = status;
  // The button stays while it is at work, so that the focus stays, too.
  const isRetrying = state === "connecting" && reason !== undefined;
  // The slow attempts while suspended are not announced one by one.
  const shownState = isRetrying && failures >= SUSPEND_AFTER_FAILURES ? "suspended" : state;
  return (
    <section className="status" data-state={shownState} aria-label="Connection">
      <div role="status">
        <p className="state">{STATE_TEXT[shownState]}</p>
        {reason && (
          <p className="detail">
            {describeReason(reason, config)}
            {reason.kind === "not_opened" && failures >= REPEATED && <WhereToLook config={config} />}
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

function WhereToLook({ config }: { config: Config }) {
  return isLocal(config) ? (
    <>
      {" "}
      Browsers do not tell why. Look at the terminal where <code>make up</code> runs.
    </>
  ) : (
    <>
      {" "}
      Browsers do not tell why. Look at the log group <code>{config.authorizerLogGroup}</code>.
    </>
  );
}

/** Seconds until the next attempt. It is outside of the live region, so that it is not announced every second. */
function Countdown({ until }: { until: number }) {
  const [seconds, setSeconds] = useState(() => secondsUntil(until));
  useEffect(() => {
    const update = () => setSeconds(secondsUntil(until));
    update();
    const timer = setInterval(update, 250);
    return () => clearInterval(timer);
  }, [until]);
  return <>Next attempt in {seconds} s</>;
}

function secondsUntil(time: number): number {
  return Math.max(0, Math.ceil((time - Date.now()) / 1000));
}
