/** What `make page-config` writes for a deployment. */
export const AWS = {
  userPoolId: "eu-west-1_AbCdEfGhI",
  appClientId: "4example",
  webSocketEndpoint: "wss://abc.execute-api.eu-west-1.amazonaws.com/prod",
  credential: "querystring",
  selfSignUp: true,
  passwordPolicy: {
    minimumLength: 12,
    requireLowercase: true,
    requireUppercase: true,
    requireNumbers: true,
    requireSymbols: true,
  },
  allowedOrigins: [],
  authorizerLogGroup: "/aws/lambda/authorizer",
};
