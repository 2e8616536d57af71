/**
 * The page's settings, read at run time from `config.json` next to the page: one built page serves every deployment.
 *
 * On AWS, `make page-config` writes the file from the stack's outputs. Locally, `make up` serves it.
 */

import * as v from "valibot";

const text = v.pipe(v.string("must be text"), v.nonEmpty("must not be empty"));
const flag = v.boolean("must be true or false");
const seconds = v.pipe(v.number("must be a number of seconds"), v.gtValue(0, "must be above 0"));

const schema = v.object({
  userPoolId: v.pipe(text, v.regex(/^[\w-]+_[0-9A-Za-z]+$/, "must look like us-east-1_AbCdEfGhI")),
  appClientId: text,
  webSocketEndpoint: text,
  credential: v.picklist(["querystring", "subprotocol"], 'must be "querystring" or "subprotocol"'),
  selfSignUp: flag,
  passwordPolicy: v.object(
    {
      minimumLength: v.pipe(v.number("must be a number"), v.integer("must be a whole number")),
      requireLowercase: flag,
      requireUppercase: flag,
      requireNumbers: flag,
      requireSymbols: flag,
    },
    "must be an object",
  ),
  allowedOrigins: v.array(text, "must be a list of origins"),
  authorizerLogGroup: v.exactOptional(text),
  userPoolEndpoint: v.exactOptional(text),
  idleLimitSeconds: v.exactOptional(seconds),
  connectionLimitSeconds: v.exactOptional(seconds),
});

export type Config = v.InferOutput<typeof schema>;
export type PasswordPolicy = Config["passwordPolicy"];

/** The settings are not usable. Each problem is a sentence that names the setting concerned. */
export class ConfigError extends Error {
  constructor(readonly problems: readonly string[]) {
    super(problems.join(" "));
  }
}

/** Read and check the settings. Throw ConfigError if one is missing or malformed. */
export async function loadConfig(): Promise<Config> {
  let response: Response;
  try {
    response = await fetch("./config.json", { cache: "no-store" });
  } catch (error) {
    throw new ConfigError([`config.json could not be read: ${error instanceof Error ? error.message : error}.`]);
  }
  const body = await response.text();
  // A development server answers with the page itself when the file does not exist.
  if (!response.ok || body.trimStart().startsWith("<")) {
    throw new ConfigError([`There is no config.json next to this page (HTTP ${response.status}).`]);
  }
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    throw new ConfigError(["config.json is not valid JSON."]);
  }
  return parseConfig(value);
}

/** Check the settings. Throw ConfigError with all problems that were found. */
export function parseConfig(value: unknown): Config {
  const result = v.safeParse(schema, value);
  const problems = result.success ? findEndpointProblems(result.output) : result.issues.map(describeIssue);
  if (!result.success || problems.length > 0) {
    throw new ConfigError(problems);
  }
  // Normalize the URL, so that isLocal() also recognizes "WS://".
  return { ...result.output, webSocketEndpoint: new URL(result.output.webSocketEndpoint).href };
}

/** Tell whether this is the local system of `make up`. */
export function isLocal(config: Config): boolean {
  return config.webSocketEndpoint.startsWith("ws:");
}

/** Return where Cognito is, to show in messages: the local address, or the region. */
export function describeCognitoAddress(config: Config): string {
  return config.userPoolEndpoint ?? `region ${config.userPoolId.split("_")[0]}`;
}

/** Tell whether the deployment refuses connections from pages of this origin. */
export function isOriginRefused(config: Config, origin: string): boolean {
  return config.allowedOrigins.length > 0 && !config.allowedOrigins.includes(origin);
}

function describeIssue(issue: v.BaseIssue<unknown>): string {
  const path = v.getDotPath(issue);
  if (path === null) {
    return "config.json must be a JSON object.";
  }
  return issue.input === undefined ? `${path} is missing.` : describeViolation(path, issue.input, issue.message);
}

function describeViolation(path: string, value: unknown, rule: string): string {
  return `${path} is ${JSON.stringify(value)}, but ${rule}.`;
}

/**
 * Return what is wrong with the addresses.
 *
 * A local page must never call AWS by mistake, and the page of a deployment must never call a local Cognito.
 */
function findEndpointProblems(config: Config): string[] {
  const endpoint = parseUrl(config.webSocketEndpoint);
  if (endpoint?.protocol !== "ws:" && endpoint?.protocol !== "wss:") {
    return [describeViolation("webSocketEndpoint", config.webSocketEndpoint, "must be a ws:// or wss:// address")];
  }
  const problems = endpoint.protocol === "ws:" ? findLocalProblems(config, endpoint) : findAwsProblems(config);
  if (/[?#]/.test(config.webSocketEndpoint) || endpoint.username || endpoint.password) {
    problems.push(describeViolation("webSocketEndpoint", config.webSocketEndpoint, 'must have no user, "?" or "#"'));
  }
  return problems;
}

function findLocalProblems(config: Config, endpoint: URL): string[] {
  const problems: string[] = [];
  if (!isLoopback(endpoint)) {
    problems.push(
      describeViolation(
        "webSocketEndpoint",
        config.webSocketEndpoint,
        "ws:// is for localhost, 127.0.0.1 and [::1] only",
      ),
    );
  }
  const rule = "with a ws:// endpoint it must be an http:// address of localhost, 127.0.0.1 or [::1]";
  const cognito = parseUrl(config.userPoolEndpoint ?? "");
  if (config.userPoolEndpoint === undefined) {
    problems.push(`userPoolEndpoint is missing, but ${rule}.`);
  } else if (cognito?.protocol !== "http:" || !isLoopback(cognito)) {
    problems.push(describeViolation("userPoolEndpoint", config.userPoolEndpoint, rule));
  }
  return problems;
}

function findAwsProblems(config: Config): string[] {
  const problems: string[] = [];
  if (config.userPoolEndpoint !== undefined) {
    problems.push(
      describeViolation("userPoolEndpoint", config.userPoolEndpoint, "with a wss:// endpoint it must not be set"),
    );
  }
  if (config.authorizerLogGroup === undefined) {
    problems.push("authorizerLogGroup is missing.");
  }
  return problems;
}

function parseUrl(value: string): URL | undefined {
  return URL.canParse(value) ? new URL(value) : undefined;
}

function isLoopback(url: URL): boolean {
  return /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname);
}
