/** The connection of the signed-in user, as React state. */

import { useEffect, useReducer, useRef, useState } from "react";
import type { Config } from "./config";
import { Connection, type Status } from "./connection";
import { addMessage, type Messages, NO_MESSAGES } from "./messages";
import { getIdToken, type User } from "./session";

const NOT_STARTED: Status = { state: "initialized", reason: undefined, retryAt: undefined, failures: 0 };

export interface ConnectionView {
  readonly status: Status;
  readonly messages: Messages;
  send(text: string): void;
  retryNow(): void;
  close(): Promise<void>;
}

/** Open a connection for this user, and close it when the component unmounts. */
export function useConnection(config: Config, user: User): ConnectionView {
  const connection = useRef<Connection>(undefined);
  const [status, setStatus] = useState(NOT_STARTED);
  const [messages, dispatch] = useReducer(addMessage, NO_MESSAGES);

  useEffect(() => {
    // React's strict mode runs every effect twice. Ignore what the first connection reports after it was closed.
    let isCurrent = true;
    const opened = new Connection({
      endpoint: config.webSocketEndpoint,
      credential: config.credential,
      idleLimitSeconds: config.idleLimitSeconds,
      connectionLimitSeconds: config.connectionLimitSeconds,
      getIdToken: (options) => getIdToken(user, options),
      onStatus: (changed) => isCurrent && setStatus(changed),
      onSent: (message) => isCurrent && dispatch({ kind: "sent", at: Date.now(), message }),
      onReceived: (frame) => isCurrent && dispatch({ kind: "received", at: Date.now(), frame }),
    });
    connection.current = opened;
    opened.connect();
    return () => {
      isCurrent = false;
      void opened.close();
    };
  }, [config, user]);

  return {
    status,
    messages,
    send: (text) => connection.current?.send(text),
    retryNow: () => connection.current?.retryNow(),
    close: async () => connection.current?.close(),
  };
}
