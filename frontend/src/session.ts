/** The session of the signed-in user. Amplify keeps the tokens in `localStorage`, which all tabs of this page share. */

import { Amplify } from "aws-amplify";
import { fetchAuthSession, type SignInOutput, signIn, signOut } from "aws-amplify/auth";
import type { Config } from "./config";
import { SessionEnded } from "./connection";

export interface User {
  readonly id: string;
  readonly email: string;
}

/** Names of errors after which a session can never be refreshed. Other errors, such as throttling, are temporary. */
const PERMANENT_ERRORS = [
  "NotAuthorizedException",
  "TokenRevokedException",
  "UserNotFoundException",
  "PasswordResetRequiredException",
  "UserNotConfirmedException",
  "RefreshTokenReuseException",
  "ResourceNotFoundException", // the user pool or the app client was deleted, for example by a local restart
];

/** Another tab writes several keys when its user signs in or out. Wait this long after the last one. */
const STORAGE_SETTLE_MS = 50;

const SIGN_OUT_TIMEOUT_MS = 5_000;

export function configureSession(config: Config): void {
  Amplify.configure({
    Auth: {
      Cognito: {
        userPoolId: config.userPoolId,
        userPoolClientId: config.appClientId,
        loginWith: { email: true },
        ...(config.userPoolEndpoint && { userPoolEndpoint: config.userPoolEndpoint }),
      },
    },
  });
}

/** Return the signed-in user, if any. Throw if an expired session cannot be refreshed for now. */
export async function fetchCurrentUser(): Promise<User | undefined> {
  const claims = (await fetchTokens({ forceRefresh: false }))?.idToken?.payload;
  if (!claims?.sub) {
    return undefined;
  }
  return { id: claims.sub, email: String(claims.email ?? claims["cognito:username"]) };
}

/** Return an ID token of this user. Throw SessionEnded if this user is not signed in any more. */
export async function getIdToken(user: User, options: { forceRefresh: boolean }): Promise<string> {
  const idToken = (await fetchTokens(options))?.idToken;
  if (idToken?.payload.sub !== user.id) {
    throw new SessionEnded(`${user.email} is not signed in any more`);
  }
  return idToken.toString();
}

/** Sign in by SRP. Return the next step, DONE if nothing is left to do. */
export async function startSession(username: string, password: string): Promise<SignInOutput["nextStep"]> {
  try {
    return (await signIn({ username, password })).nextStep;
  } catch (error) {
    if (!(error instanceof Error && error.name === "UserAlreadyAuthenticatedException")) {
      throw error;
    }
    await signOut(); // a session that this page does not know of
    return (await signIn({ username, password })).nextStep;
  }
}

/** Sign out. If Cognito does not answer, delete the tokens without revoking them. */
export async function endSession(config: Config): Promise<void> {
  const hasAnswered = await Promise.race([
    signOut().then(() => true),
    new Promise<false>((resolve) => setTimeout(() => resolve(false), SIGN_OUT_TIMEOUT_MS)),
  ]);
  if (!hasAnswered) {
    for (const key of Object.keys(localStorage).filter((name) => name.startsWith(getStoragePrefix(config)))) {
      localStorage.removeItem(key);
    }
    location.reload(); // cancels the pending sign-out, which would clear the next session
  }
}

/** Call `onChange` after another tab has changed who is signed in. Return a function that stops watching. */
export function watchSession(config: Config, onChange: (user: User | undefined) => void): () => void {
  const prefix = getStoragePrefix(config);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const check = () => {
    // If Cognito cannot be reached, the session stays as it is until the connection needs a token.
    fetchCurrentUser().then(onChange, () => undefined);
  };
  const listener = ({ key }: StorageEvent) => {
    // The key is null after localStorage.clear().
    if (key === null || key.startsWith(prefix)) {
      clearTimeout(timer);
      timer = setTimeout(check, STORAGE_SETTLE_MS);
    }
  };
  window.addEventListener("storage", listener);
  return () => {
    clearTimeout(timer);
    window.removeEventListener("storage", listener);
  };
}

function getStoragePrefix(config: Config): string {
  return `CognitoIdentityServiceProvider.${config.appClientId}.`;
}

async function fetchTokens(options: { forceRefresh: boolean }) {
  try {
    return (await fetchAuthSession(options)).tokens;
  } catch (error) {
    if (error instanceof Error && PERMANENT_ERRORS.includes(error.name)) {
      return undefined;
    }
    throw error;
  }
}
