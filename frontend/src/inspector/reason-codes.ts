/** The meaning of the reason codes in the functions' log records. A code that is not listed is shown unchanged. */

const MEANINGS: Record<string, string> = {
  missing_origin: "the client sent no Origin header, and the stack requires one",
  origin_not_allowed: "the page's origin is not among the allowed origins",
  missing_token: "the client sent no token",
  exceeded_size: "the token is too long",
  malformed_token: "the token is not a JSON Web Token",
  unsupported_algorithm: "the token is not signed with RS256",
  unsupported_header: "the token's header has a member that Cognito does not write",
  unsupported_type: "the token's type is not JWT",
  missing_kid: "the token does not name its key",
  malformed_kid: "the token's key id is malformed",
  unknown_kid: "the user pool has no key with the token's key id",
  bad_signature: "the token's signature is wrong",
  "expired_token.exp": "the token has expired",
  missing_group: "the user is not in the required group",
  unknown_subprotocol: "the client offers no subprotocol that the server knows",
  too_many_connections: "the user has as many connections as allowed",
  kicked: "an operator ended the connection",
  token_expired: "the token that opened the connection has expired",
  connection_limit: "the connection was open for as long as API Gateway allows",
  idle_limit: "there was no message for as long as API Gateway allows",
  connection_lost: "the connection was lost without a closing handshake",
  refused_by_gateway: "API Gateway refused a frame of the client",
  client_closed: "the client closed the connection",
};

const PREFIXES: [prefix: string, meaning: (rest: string) => string][] = [
  ["repeated_", (name) => `the client sent ${name} more than once`],
  ["missing_claim.", (name) => `the token has no claim ${name}`],
  ["invalid_claim.", (name) => `the token's claim ${name} has a wrong value`],
];

export function explainReason(code: string): string | undefined {
  if (Object.hasOwn(MEANINGS, code)) {
    return MEANINGS[code];
  }
  const prefix = PREFIXES.find(([each]) => code.startsWith(each) && code.length > each.length);
  return prefix?.[1](code.slice(prefix[0].length));
}
