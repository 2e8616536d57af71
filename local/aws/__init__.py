"""The rest of AWS that functions call: Cognito and DynamoDB, IAM, and the endpoint in front of them."""
