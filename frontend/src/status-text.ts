/** The connection's state and the reason for it, in plain words. */

import { type Config, describeCognitoAddress } from "./config";
import type { ConnectionState, Reason } from "./connection";
import { describeError } from "./errors";

export const STATE_TEXT: Record<ConnectionState, string> = {
  initialized: "Connecting",
  connecting: "Connecting",
  connected: "Connected",
  disconnected: "Disconnected",
  suspended: "Suspended",
  closing: "Closing",
  closed: "Closed",
  failed: "Failed",
};

export function describeReason(reason: Reason, config: Config): string {
  switch (reason.kind) {
    case "not_opened":
      return "The server refused the connection, or could not be reached.";
    case "lost":
      return describeLoss(reason.code, reason.text);
    case "no_answer":
      return "The server did not answer a keep-alive message.";
    case "token_expired":
      return "The ID token of this connection expired.";
    case "token_unavailable":
      return `There is no ID token to connect with. ${describeError(reason.error, describeCognitoAddress(config)).text}`;
    case "session_ended":
      return "Your session has ended. Sign in again to connect.";
  }
}

/** A browser reports code 1006 when there was no closing handshake. */
function describeLoss(code: number, text: string): string {
  if (code === 1009) {
    return "The server closed the connection, because a message was too large.";
  }
  return code === 1006
    ? "The connection was lost."
    : `The server closed the connection with code ${code}${text && ` (${text})`}.`;
}
