"""The endpoint that functions call instead of AWS: a proxy that checks the caller's role and forwards to the local AWS.

Functions reach it by the SDKs' variables. Addresses of AWS that they build themselves also lead here, because AWS's host
names are made local (names.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.aws.account import Account
from local.aws.iam import ADMINISTRATOR, Iam
from local.aws.models import load_service_model
from local.aws.names import LocalNames
from local.aws.resolver import sitecustomize
from local.aws.signature import Signature, SignatureError
from local.ids import find_trace_id
from local.journal import Journal
from local.ports import SHUTDOWN_SECONDS

MAX_REQUEST_BYTES = 32 * 1024 * 1024  # DynamoDB itself takes 16 MB
REGION = re.compile(r"[a-z]{2,4}(-[a-z]+)+-\d")
REST_XML = {"cloudfront", "route53", "s3", "s3-object-lambda", "s3-outposts", "s3express"}  # their errors are XML
FORWARDED_HEADERS = {"content-type", "x-amz-target", "x-amz-api-version", "x-amz-user-agent", "amz-sdk-invocation-id"}
DYNAMODB_ITEMS = {
    "Put": "PutItem",
    "Update": "UpdateItem",
    "Delete": "DeleteItem",
    "ConditionCheck": "ConditionCheckItem",
}
DYNAMODB_ACCOUNT_OPERATIONS = {"DescribeEndpoints", "DescribeLimits", "ListBackups", "ListTables"}

REQUIRED_RESOURCES = {"cognito-idp": "AWS::Cognito::UserPool", "dynamodb": "AWS::DynamoDB::Table"}
NO_ACCOUNT = Account()
# Facts about a request that are recorded in the journal.
SERVICE = web.RequestKey("service", str)
RESOURCE = web.RequestKey("resource", str)
EFFECT = web.RequestKey("effect", str)

logger = logging.getLogger(__name__)

Grant = tuple[str, str]  # an action and a resource, e.g. `dynamodb:PutItem` and a table's ARN


class UnknownCallError(ValueError):
    """It is unknown which grants a call needs. The message names the call."""


def list_grants(service: str, target: str, body: bytes, account: Account = NO_ACCOUNT) -> Iterator[Grant]:
    """Yield the grants that a call needs, for example one for each table of a transaction.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazondynamodb.html

    Raises:
        UnknownCallError: it is unknown which grants the call needs.
    """
    operation = target.rpartition(".")[2]
    try:
        parameters = json.loads(body or b"{}")
    except ValueError as error:
        raise UnknownCallError("the request is not JSON") from error
    if not isinstance(parameters, dict) or not operation:
        raise UnknownCallError(f"{service}: the request names no operation, or its body is not an object")
    if service == "cognito-idp":
        user_pool_id = parameters.get("UserPoolId")
        arn = account.build_arn("AWS::Cognito::UserPool", user_pool_id) if user_pool_id else "*"
        yield f"cognito-idp:{operation}", arn
    elif service == "dynamodb":
        yield from list_dynamodb_grants(operation, parameters, account)
    else:
        raise UnknownCallError(f"{service} cannot be evaluated locally")


def is_public(target: str) -> bool:
    """Return whether the service's model says that a call needs no signature, such as a user's own sign-in."""
    model = load_service_model("cognito-idp")
    prefix, _, operation = target.rpartition(".")
    known = prefix == model.metadata["targetPrefix"] and operation in model.operation_names
    return known and model.operation_model(operation).auth_type == "none"


def list_dynamodb_grants(operation: str, parameters: dict[str, Any], account: Account) -> Iterator[Grant]:
    action = f"dynamodb:{operation}"
    if operation in DYNAMODB_ACCOUNT_OPERATIONS:
        yield action, "*"
    elif operation in {"BatchGetItem", "BatchWriteItem"}:
        for name in parameters.get("RequestItems") or ():
            yield action, build_table_arn(name, account)
    elif operation in {"TransactGetItems", "TransactWriteItems"}:
        for item in parameters.get("TransactItems") or ():
            for name, part in item.items():
                yield f"dynamodb:{DYNAMODB_ITEMS.get(name, 'GetItem')}", build_table_arn(part.get("TableName"), account)
    elif "TableName" in parameters:
        index = f"/index/{parameters['IndexName']}" if parameters.get("IndexName") else ""
        yield action, build_table_arn(parameters["TableName"], account) + index
    else:
        raise UnknownCallError(f"{action} cannot be evaluated locally")


def build_table_arn(name: object, account: Account) -> str:
    """Return the ARN of a table, given its name or its ARN."""
    text = str(name)
    return text if text.startswith("arn:") else account.build_arn("AWS::DynamoDB::Table", text)


class AwsEndpoint:
    """A server on the loopback interface for the calls of functions.

    Args:
        iam: decides which calls the callers' roles allow.
        urls: where each local service listens, by service.
        account: the account and region of the template.
        journal: where calls are recorded.
    """

    def __init__(
        self, iam: Iam, urls: Mapping[str, str], account: Account = NO_ACCOUNT, journal: Journal | None = None
    ) -> None:
        self.account = account
        self.iam = iam
        self.journal = journal
        self.urls = urls
        self._credentials = Credentials(ADMINISTRATOR, ADMINISTRATOR)
        self._gateway = "", 0
        self._warned: set[str] = set()

    async def start(self) -> str:
        """Listen with and without TLS; return the URL without TLS."""
        self._http = web.Server(self._serve, access_log=None)
        self._server = await asyncio.get_running_loop().create_server(self._http, "127.0.0.1", 0)
        self._port = int(self._server.sockets[0].getsockname()[1])
        self._names = LocalNames(self._find_port)
        await self._names.start()
        self._client = ClientSession(
            auto_decompress=False,
            connector=TCPConnector(limit=0),
            cookie_jar=DummyCookieJar(),
            timeout=ClientTimeout(total=None),
        )
        return f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        await self._names.stop()
        self._server.close()
        await self._http.shutdown(SHUTDOWN_SECONDS)
        await self._client.close()

    def route_gateway(self, domain_name: str, port: int) -> None:
        """Route calls of the API's own host name to the gateway, which listens on this port."""
        self._gateway = domain_name, port

    def _find_port(self, host: str) -> int:
        domain_name, port = self._gateway
        return port if host == domain_name else self._port

    def build_environment(self, own: Mapping[str, str] = {}) -> dict[str, str]:
        """Return the variables that make AWS's names local in a function whose template sets `own`."""
        return self._names.build_environment(own)

    def list_files(self) -> list[Path]:
        """Return the paths that must be mounted read-only into a function's container, at the same path."""
        return [self._names.files]

    async def _serve(self, request: web.BaseRequest) -> web.Response:
        started = time.monotonic()
        response = await self._answer(request)
        if self.journal:
            target = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
            self.journal.record(
                "call",
                find_trace_id(request.headers.get("X-Amzn-Trace-Id")),
                service=request[SERVICE],
                operation=target or f"{request.method} {request.path}",
                resource=request.get(RESOURCE),
                effect=request.get(EFFECT, "not evaluated"),
                status=response.status,
                milliseconds=round((time.monotonic() - started) * 1000, 1),
            )
        return response

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        signature, fault = parse_signature(request)
        host, service, region = self._find_service(request, signature)
        request[SERVICE] = service
        if message := self._explain_missing(host, service, region):
            self._warn_once(message, signature)
            return build_not_implemented_response(request, service, message)
        if (request.content_length or 0) > MAX_REQUEST_BYTES:
            return build_error_response(
                413, "RequestEntityTooLarge", f"a request has at most {MAX_REQUEST_BYTES} bytes"
            )
        body = await request.content.read()
        target = request.headers.get("X-Amz-Target", "")
        if signature:
            refusal = self._authorize(request, signature, service, target, body)
        else:
            refusal = fault if target and not is_public(target) else None
        return refusal or await self._forward(request, service, body, signed=signature is not None)

    def _find_service(self, request: web.BaseRequest, signature: Signature | None) -> tuple[str, str, str]:
        """Return the host, service and region of a call, from its host name or else from its signature."""
        host = request.headers.get("Host", "").partition(":")[0].lower().rstrip(".")
        if sitecustomize.is_aws(host):
            return host, *parse_host_name(host)
        if signature:
            return host, signature.service, signature.region
        return host, "cognito-idp", self.account.region

    def _explain_missing(self, host: str, service: str, region: str) -> str | None:
        """Return why the called service is not run locally; None if it is run."""
        if service in self.urls and region == self.account.region:
            return None
        if service in self.urls:
            return f"{service} in {region} is not run locally: the template's region is {self.account.region}"
        if service == "execute-api":
            return f"{host} is not run locally: the template's API is {self._gateway[0]}"
        if service in REQUIRED_RESOURCES and not self.urls:
            return f"{service} is not run, because the template has no {REQUIRED_RESOURCES[service]}"
        run = ", ".join([*self.urls, "execute-api"])
        return (
            f"{service} is not run locally, only {run}. Leave the call out, or give the function the address of"
            " a stand-in, as its variable AWS_ENDPOINT_URL_<SERVICE>"
        )

    def _warn_once(self, message: str, signature: Signature | None) -> None:
        """Log each message once, with the name of the calling function."""
        if message not in self._warned:
            self._warned.add(message)
            session = self.iam.sessions.get(signature.access_key_id) if signature else None
            logger.warning("%s%s", f"{session.function}: " if session else "", message)

    def _authorize(
        self, request: web.BaseRequest, signature: Signature, service: str, target: str, body: bytes
    ) -> web.Response | None:
        """Return an error response if the signature is wrong or the caller's role does not allow the call."""
        try:
            signature.check(self.iam, service, self.account.region)
            signature.verify(self.iam, request.method, request.raw_path, request.headers, body)
            for action, resource in list(list_grants(service, target, body, self.account)):
                request[RESOURCE] = resource
                if refused := self.iam.authorize(signature.access_key_id, action, resource):
                    request[EFFECT] = "denied"
                    return build_error_response(400, "AccessDeniedException", refused.message)
        except SignatureError as error:
            return build_error_response(400, error.type, str(error))
        except (UnknownCallError, AttributeError, TypeError) as error:
            return build_error_response(501, "NotImplemented", f"not evaluated: {error}")
        if self.iam.enforced and signature.access_key_id != ADMINISTRATOR:
            request[EFFECT] = "allowed"
        return None

    async def _forward(self, request: web.BaseRequest, service: str, body: bytes, *, signed: bool) -> web.Response:
        url = self.urls[service] + request.raw_path
        headers = {name: value for name, value in request.headers.items() if name.lower() in FORWARDED_HEADERS}
        if signed:
            resigned = AWSRequest(request.method, url, headers, body)
            SigV4Auth(self._credentials, service, self.account.region).add_auth(resigned)
            headers = dict(resigned.headers.items())
        headers["Accept-Encoding"] = "identity"  # the caller may not understand a compressed answer
        try:
            async with self._client.request(request.method, url, headers=headers, data=BytesIO(body)) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower().startswith("x-amz")}
                return web.Response(
                    status=answer.status,
                    body=await answer.read(),
                    headers={**kept, "Content-Type": answer.headers.get("Content-Type", "application/json")},
                )
        except ClientError as error:
            return build_error_response(503, "ServiceUnavailable", f"the local {service} does not answer: {error}")


def parse_signature(request: web.BaseRequest) -> tuple[Signature | None, web.Response | None]:
    """Return the request's signature and None, or None and the error response for a call that needs a signature."""
    try:
        return Signature.parse(request.raw_path, request.headers), None
    except SignatureError as error:
        return None, build_error_response(400, error.type, str(error))


def parse_host_name(host: str) -> tuple[str, str]:
    """Return service and region of a host name of AWS, e.g. `rooms.s3.us-east-1.amazonaws.com`.

    The region is empty for a global service.
    """
    suffix = max((each for each in sitecustomize.SUFFIXES if f".{host}".endswith(each)), key=len)
    labels = [each for each in f".{host}".removesuffix(suffix).split(".") if each != "dualstack"]
    region = labels.pop() if REGION.fullmatch(labels[-1]) else ""
    return labels[-1].removesuffix("-fips") or host, region


def build_not_implemented_response(request: web.BaseRequest, service: str, message: str) -> web.Response:
    """Return a 501 in the error format that the service's SDK understands."""
    error = f"<Error><Code>NotImplemented</Code><Message>{escape(message)}</Message></Error>"
    if request.content_type == "application/x-www-form-urlencoded":
        return web.Response(status=501, text=f"<Response><Errors>{error}</Errors></Response>", content_type="text/xml")
    if service in REST_XML:
        return web.Response(status=501, text=error, content_type="application/xml")
    return build_error_response(501, "NotImplemented", message)


def build_error_response(status: int, error: str, message: str) -> web.Response:
    """Return an error in the format of services with a JSON protocol."""
    body = json.dumps({"__type": error, "message": message})
    return web.Response(
        status=status, text=body, content_type="application/x-amz-json-1.0", headers={"x-amzn-ErrorType": error}
    )
