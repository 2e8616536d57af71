import { useEffect, useState } from "react";
import { Account } from "./components/account";
import { Echo } from "./components/echo";
import { Page } from "./components/page";
import type { Config } from "./config";
import { endSession, type User, watchSession } from "./session";

interface Session {
  readonly user: User | undefined;
  /** For the sign-in form, after a session has ended. */
  readonly email?: string;
  readonly notice?: string;
}

export function App({ config, initialUser }: { config: Config; initialUser: User | undefined }) {
  const [session, setSession] = useState<Session>({ user: initialUser });

  useEffect(
    () => watchSession(config, (user) => setSession((previous) => updateFromOtherTab(previous, user))),
    [config],
  );

  const { user, email, notice } = session;
  return user ? (
    <Echo
      key={user.id}
      config={config}
      user={user}
      onSignOut={async () => {
        await endSession(config);
        setSession({ user: undefined });
      }}
      onSessionEnded={() => setSession({ user: undefined, email: user.email })}
    />
  ) : (
    <Page config={config} subtitle={<code>{config.webSocketEndpoint}</code>}>
      <Account
        config={config}
        email={email}
        notice={notice}
        onSignedIn={(signedIn) => setSession({ user: signedIn })}
      />
    </Page>
  );
}

/** Return the session after another tab has signed in or out, or has refreshed the tokens of the same user. */
function updateFromOtherTab(previous: Session, user: User | undefined): Session {
  if (user?.id === previous.user?.id) {
    return previous;
  }
  return user ? { user } : { user, notice: "You are signed out: the session ended in another tab." };
}
