import { fetchAuthSession, signIn, signOut } from "aws-amplify/auth";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Config } from "../src/config";
import { SessionEnded } from "../src/connection";
import { endSession, fetchCurrentUser, getIdToken, startSession, watchSession } from "../src/session";

vi.mock("aws-amplify", () => ({ Amplify: { configure: vi.fn() } }));
vi.mock("aws-amplify/auth", () => ({ fetchAuthSession: vi.fn(), signIn: vi.fn(), signOut: vi.fn() }));

const ADA = { id: "sub-of-ada", email: "ada@example.com" };

function makeTokens(user: typeof ADA) {
  const payload = { sub: user.id, email: user.email };
  return { tokens: { idToken: { payload, toString: () => `token of ${user.email}` } } } as never;
}

function makeError(name: string): Error {
  return Object.assign(new Error(name), { name });
}

beforeEach(() => {
  vi.resetAllMocks();
});

describe("endSession", () => {
  const config = { appClientId: "client" } as Config;
  const prefix = "CognitoIdentityServiceProvider.client.";
  let reloads: number;
  let kept: Record<string, string>;

  beforeEach(() => {
    vi.useFakeTimers();
    reloads = 0;
    kept = { [`${prefix}LastAuthUser`]: "ada", [`${prefix}ada.idToken`]: "token", theme: "dark" };
    vi.stubGlobal("location", { reload: () => (reloads += 1) });
    vi.stubGlobal(
      "localStorage",
      new Proxy(kept, { get: (target, name) => (name === "removeItem" ? (key: string) => delete target[key] : name) }),
    );
  });

  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it("leaves the tokens to Amplify if Cognito answers", async () => {
    vi.mocked(signOut).mockResolvedValue(undefined);

    await endSession(config);

    expect(Object.keys(kept)).toHaveLength(3);
    expect(reloads).toBe(0);
  });

  it("deletes the tokens after five seconds without an answer", async () => {
    vi.mocked(signOut).mockReturnValue(new Promise(() => {}));

    await Promise.all([endSession(config), vi.advanceTimersByTimeAsync(5_000)]);

    expect(kept).toEqual({ theme: "dark" });
    expect(reloads).toBe(1);
  });
});

describe("getIdToken", () => {
  it("returns the text of the ID token", async () => {
    vi.mocked(fetchAuthSession).mockResolvedValue(makeTokens(ADA));
    expect(await getIdToken(ADA, { forceRefresh: true })).toBe("token of ada@example.com");
    expect(fetchAuthSession).toHaveBeenCalledWith({ forceRefresh: true });
  });

  it("ends the session if there are no tokens", async () => {
    vi.mocked(fetchAuthSession).mockResolvedValue({});
    await expect(getIdToken(ADA, { forceRefresh: false })).rejects.toThrow(SessionEnded);
  });

  it("ends the session if another user is signed in", async () => {
    vi.mocked(fetchAuthSession).mockResolvedValue(makeTokens({ ...ADA, id: "sub-of-grace" }));
    await expect(getIdToken(ADA, { forceRefresh: false })).rejects.toThrow(SessionEnded);
  });

  it.each([
    "NotAuthorizedException",
    "TokenRevokedException",
    "UserNotFoundException",
    "PasswordResetRequiredException",
    "UserNotConfirmedException",
    "RefreshTokenReuseException",
    "ResourceNotFoundException",
  ])("ends the session after %s", async (name) => {
    vi.mocked(fetchAuthSession).mockRejectedValue(makeError(name));
    await expect(getIdToken(ADA, { forceRefresh: true })).rejects.toThrow(SessionEnded);
  });

  it.each(["NetworkError", "TooManyRequestsException", "Unknown"])(
    "throws %s unchanged, because a retry may help",
    async (name) => {
      const error = makeError(name);
      vi.mocked(fetchAuthSession).mockRejectedValue(error);
      await expect(getIdToken(ADA, { forceRefresh: true })).rejects.toBe(error);
    },
  );
});

describe("fetchCurrentUser", () => {
  it("returns the user of the ID token", async () => {
    vi.mocked(fetchAuthSession).mockResolvedValue(makeTokens(ADA));
    expect(await fetchCurrentUser()).toEqual(ADA);
  });

  it("returns undefined without tokens", async () => {
    vi.mocked(fetchAuthSession).mockResolvedValue({});
    expect(await fetchCurrentUser()).toBeUndefined();
  });
});

describe("startSession", () => {
  const DONE = { isSignedIn: true, nextStep: { signInStep: "DONE" } } as const;

  it("returns the next step", async () => {
    vi.mocked(signIn).mockResolvedValue(DONE);
    expect(await startSession(ADA.email, "password")).toEqual({ signInStep: "DONE" });
    expect(signOut).not.toHaveBeenCalled();
  });

  it("signs out a session that the page does not know, then signs in", async () => {
    vi.mocked(signIn).mockRejectedValueOnce(makeError("UserAlreadyAuthenticatedException")).mockResolvedValueOnce(DONE);
    expect(await startSession(ADA.email, "password")).toEqual({ signInStep: "DONE" });
    expect(signOut).toHaveBeenCalledOnce();
  });

  it("throws other errors unchanged", async () => {
    vi.mocked(signIn).mockRejectedValue(makeError("NotAuthorizedException"));
    await expect(startSession(ADA.email, "password")).rejects.toThrow("NotAuthorizedException");
  });
});

describe("watchSession", () => {
  const config = { appClientId: "client" } as Config;
  const onChange = vi.fn();
  let stop: () => void;

  beforeEach(() => {
    vi.useFakeTimers();
    vi.stubGlobal("window", new EventTarget());
    stop = watchSession(config, onChange);
  });

  afterEach(() => {
    stop();
    vi.unstubAllGlobals();
    vi.useRealTimers();
  });

  function changeInOtherTab(...keys: (string | null)[]) {
    for (const key of keys) {
      window.dispatchEvent(Object.assign(new Event("storage"), { key }));
    }
    return vi.runAllTimersAsync();
  }

  it.each([
    ["a token", ["CognitoIdentityServiceProvider.client.ada.idToken"]],
    ["the whole storage", [null]],
    ["several keys at once", ["CognitoIdentityServiceProvider.client.a", "CognitoIdentityServiceProvider.client.b"]],
  ])("asks once who is signed in after a change of %s", async (_name, keys) => {
    vi.mocked(fetchAuthSession).mockResolvedValue({});
    await changeInOtherTab(...keys);
    expect(onChange.mock.calls).toEqual([[undefined]]);
  });

  it("reports another user", async () => {
    vi.mocked(fetchAuthSession).mockResolvedValue(makeTokens(ADA));
    await changeInOtherTab("CognitoIdentityServiceProvider.client.LastAuthUser");
    expect(onChange.mock.calls).toEqual([[ADA]]);
  });

  it("ignores the keys of other programs", async () => {
    await changeInOtherTab("theme", "CognitoIdentityServiceProvider.another-client.ada.idToken");
    expect(fetchAuthSession).not.toHaveBeenCalled();
  });

  it("changes nothing while Cognito cannot be reached", async () => {
    vi.mocked(fetchAuthSession).mockRejectedValue(makeError("NetworkError"));
    await changeInOtherTab(null);
    expect(onChange).not.toHaveBeenCalled();
  });

  it("reports nothing after it was stopped", async () => {
    vi.mocked(fetchAuthSession).mockResolvedValue({});
    window.dispatchEvent(Object.assign(new Event("storage"), { key: null }));
    stop();
    await vi.runAllTimersAsync();
    expect(onChange).not.toHaveBeenCalled();
  });
});
