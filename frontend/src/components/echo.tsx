import { useEffect, useRef, useState } from "react";
import type { Config } from "../config";
import type { User } from "../session";
import { useConnection } from "../use-connection";
import { ConnectionStatus } from "./connection-status";
import { MessageForm } from "./message-form";
import { MessageList } from "./message-list";
import { Page } from "./page";

interface EchoProps {
  config: Config;
  user: User;
  onSignOut(): Promise<void>;
  onSessionEnded(): void;
}

/** Send messages and see their echoes, as the signed-in user. */
export function Echo({ config, user, onSignOut, onSessionEnded }: EchoProps) {
  const { status, messages, send, retryNow, close } = useConnection(config, user);
  const [isSigningOut, setIsSigningOut] = useState(false);
  const messageField = useRef<HTMLInputElement>(null);

  useEffect(() => {
    // After sign-in, a reload or "Retry now", the element that had the focus is gone. Focus the message field.
    if (status.state !== "failed" && document.activeElement === document.body) {
      messageField.current?.focus();
    }
  }, [status.state]);

  async function signOut() {
    if (!isSigningOut) {
      setIsSigningOut(true);
      await close();
      await onSignOut();
    }
  }

  return (
    <Page
      config={config}
      subtitle={`Signed in as ${user.email}`}
      aside={
        <button type="button" className="secondary" aria-disabled={isSigningOut} onClick={() => void signOut()}>
          Sign out
        </button>
      }
      isWide
    >
      <ConnectionStatus config={config} status={status} onRetry={retryNow} onSignIn={onSessionEnded} />
      <MessageList entries={messages.entries} />
      <MessageForm field={messageField} onSend={send} />
    </Page>
  );
}
