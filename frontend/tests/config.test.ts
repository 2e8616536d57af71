import { afterEach, describe, expect, it, vi } from "vitest";
import { ConfigError, describeCognitoAddress, isLocal, isOriginRefused, loadConfig, parseConfig } from "../src/config";
import { AWS } from "./aws-config";

const { authorizerLogGroup: _, ...withoutLogGroup } = AWS;
const LOCAL = {
  ...withoutLogGroup,
  webSocketEndpoint: "ws://127.0.0.1:4510/prod",
  userPoolEndpoint: "http://127.0.0.1:4511/",
  idleLimitSeconds: 600,
  connectionLimitSeconds: 7200,
};

/** Return what is wrong with settings that were read from JSON, where undefined is a missing key. */
function findProblems(value: unknown): readonly string[] {
  try {
    parseConfig(JSON.parse(JSON.stringify(value)));
    return [];
  } catch (error) {
    if (error instanceof ConfigError) {
      return error.problems;
    }
    throw error;
  }
}

describe("settings that fit together", () => {
  it.each([
    ["of a deployment", AWS],
    ["of the local system", LOCAL],
    ["with the subprotocol", { ...AWS, credential: "subprotocol" }],
    ["with short limits", { ...LOCAL, idleLimitSeconds: 0.5, connectionLimitSeconds: 6 }],
    [
      "with localhost",
      { ...LOCAL, webSocketEndpoint: "ws://localhost:1/prod", userPoolEndpoint: "http://localhost:2" },
    ],
    ["with IPv6", { ...LOCAL, webSocketEndpoint: "ws://[::1]:1/prod", userPoolEndpoint: "http://[::1]:2/" }],
  ])("are accepted: %s", (_name, config) => {
    expect(parseConfig(config)).toEqual(config);
  });

  it("may contain values that this page does not know", () => {
    expect(findProblems({ ...AWS, newInNextVersion: 1 })).toEqual([]);
  });
});

describe("missing and malformed values", () => {
  it.each(Object.keys(AWS))("%s is named if it is missing", (name) => {
    expect(findProblems({ ...AWS, [name]: undefined })).toEqual([`${name} is missing.`]);
  });

  it.each(Object.keys(AWS.passwordPolicy))("passwordPolicy.%s is named if it is missing", (name) => {
    const passwordPolicy = { ...AWS.passwordPolicy, [name]: undefined };
    expect(findProblems({ ...AWS, passwordPolicy })).toEqual([`passwordPolicy.${name} is missing.`]);
  });

  it.each([
    ["userPoolId", "AbCdEfGhI", "must look like us-east-1_AbCdEfGhI"],
    ["appClientId", "", "must not be empty"],
    ["webSocketEndpoint", 1, "must be text"],
    ["credential", "cookie", 'must be "querystring" or "subprotocol"'],
    ["selfSignUp", "true", "must be true or false"],
    ["passwordPolicy", 12, "must be an object"],
    ["allowedOrigins", "https://example.com", "must be a list of origins"],
    ["idleLimitSeconds", 0, "must be above 0"],
    ["connectionLimitSeconds", "7200", "must be a number of seconds"],
  ])("%s is named if it is %j", (name, value, rule) => {
    expect(findProblems({ ...AWS, [name]: value })).toEqual([`${name} is ${JSON.stringify(value)}, but ${rule}.`]);
  });

  it("are all named at once", () => {
    expect(findProblems({ ...AWS, userPoolId: undefined, selfSignUp: 1 })).toHaveLength(2);
  });

  it.each([[null], ["text"], [1]])("%j is refused, because it is not an object", (value) => {
    expect(findProblems(value)).toEqual(["config.json must be a JSON object."]);
  });

  it("an empty list is refused", () => {
    expect(findProblems([])).not.toEqual([]);
  });
});

describe("mixes of the local system and AWS", () => {
  it.each([
    ["ws:// to another machine", { ...LOCAL, webSocketEndpoint: "ws://example.com/prod" }, "webSocketEndpoint"],
    [
      "ws:// to a name that looks local",
      { ...LOCAL, webSocketEndpoint: "ws://127.0.0.1.example.com/" },
      "webSocketEndpoint",
    ],
    [
      "ws:// with a local user part",
      { ...LOCAL, webSocketEndpoint: "ws://127.0.0.1@example.com/" },
      "webSocketEndpoint",
    ],
    ["ws:// without userPoolEndpoint", { ...LOCAL, userPoolEndpoint: undefined }, "userPoolEndpoint"],
    [
      "ws:// with AWS's Cognito",
      { ...LOCAL, userPoolEndpoint: "https://cognito-idp.eu-west-1.amazonaws.com/" },
      "userPoolEndpoint",
    ],
    [
      "ws:// with a Cognito on another machine",
      { ...LOCAL, userPoolEndpoint: "http://192.168.0.1:4511/" },
      "userPoolEndpoint",
    ],
    ["ws:// with a relative userPoolEndpoint", { ...LOCAL, userPoolEndpoint: "/cognito" }, "userPoolEndpoint"],
    [
      "ws:// with userPoolEndpoint without a scheme",
      { ...LOCAL, userPoolEndpoint: "localhost:4511" },
      "userPoolEndpoint",
    ],
    ["wss:// with userPoolEndpoint", { ...AWS, userPoolEndpoint: "http://127.0.0.1:4511/" }, "userPoolEndpoint"],
    ["https://", { ...AWS, webSocketEndpoint: "https://example.com/prod" }, "webSocketEndpoint"],
    ["no address", { ...AWS, webSocketEndpoint: "prod" }, "webSocketEndpoint"],
    ["an empty query string", { ...AWS, webSocketEndpoint: "wss://example.com/prod?" }, "webSocketEndpoint"],
    ["an empty fragment", { ...AWS, webSocketEndpoint: "wss://example.com/prod#" }, "webSocketEndpoint"],
    ["a password", { ...AWS, webSocketEndpoint: "wss://:secret@example.com/prod" }, "webSocketEndpoint"],
    ["a query string", { ...AWS, webSocketEndpoint: "wss://example.com/prod?idToken=" }, "webSocketEndpoint"],
  ])("are refused with the setting and its value: %s", (_name, config: Record<string, unknown>, named) => {
    const value = config[named] === undefined ? "missing" : JSON.stringify(config[named]);
    const problems = findProblems(config);
    expect(problems).not.toEqual([]);
    expect(problems.every((problem) => problem.startsWith(`${named} is ${value}, but `))).toBe(true);
  });
});

it("an address in upper case is recognized as local", () => {
  const config = parseConfig({ ...LOCAL, webSocketEndpoint: " WS://LOCALHOST:4510/prod" });

  expect(config.webSocketEndpoint).toBe("ws://localhost:4510/prod");
  expect(isLocal(config)).toBe(true);
});

describe("config.json", () => {
  afterEach(() => vi.unstubAllGlobals());

  function serve(body: string, status = 200) {
    const fetch = vi.fn(async () => new Response(body, { status }));
    vi.stubGlobal("fetch", fetch);
    return fetch;
  }

  it("is fetched again at each start, from next to the page", async () => {
    const fetch = serve(JSON.stringify(LOCAL));
    expect(await loadConfig()).toEqual(LOCAL);
    expect(fetch).toHaveBeenCalledWith("./config.json", { cache: "no-store" });
  });

  it.each([
    ["the server answers 404", "Not Found", 404, "There is no config.json next to this page (HTTP 404)."],
    ["the server answers with a page", "<!doctype html>", 200, "There is no config.json next to this page (HTTP 200)."],
    ["it is not JSON", "{", 200, "config.json is not valid JSON."],
  ])("is named if %s", async (_name, body, status, problem) => {
    serve(body, status);
    await expect(loadConfig()).rejects.toThrow(new ConfigError([problem]));
  });

  it("is named if the server cannot be reached", async () => {
    vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
    await expect(loadConfig()).rejects.toThrow("config.json could not be read: Failed to fetch.");
  });
});

it("Cognito's address is its local URL or its region", () => {
  expect(describeCognitoAddress(parseConfig(LOCAL))).toBe("http://127.0.0.1:4511/");
  expect(describeCognitoAddress(parseConfig(AWS))).toBe("region eu-west-1");
});

it("an origin is refused if the list has only others", () => {
  const listed = parseConfig({ ...AWS, allowedOrigins: ["https://app.example.com"] });
  expect(isOriginRefused(listed, "http://localhost:3000")).toBe(true);
  expect(isOriginRefused(listed, "https://app.example.com")).toBe(false);
  expect(isOriginRefused(parseConfig(AWS), "http://localhost:3000")).toBe(false);
});
