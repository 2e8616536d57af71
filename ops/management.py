"""`@connections` without the SDK's client, whose calls take three times as much CPU time; botocore signs them."""

from __future__ import annotations

import json
import ssl
import urllib.request
from base64 import b64encode
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, SSLError
from botocore.httpsession import get_cert_path
from botocore.session import Session

TIMEOUT_SECONDS = 10
OPERATIONS = {"POST": "PostToConnection", "DELETE": "DeleteConnection"}


class Management:
    """Posts to connections of one stage and deletes them; safe to use from many threads."""

    def __init__(self, callback_url: str, region: str, session: Session) -> None:
        self.url = callback_url.rstrip("/")
        self._region = region
        self._session = session
        self._idle: list[HTTPConnection] = []  # append and pop are atomic
        self._tls = None
        if urlsplit(self.url).scheme == "https":
            self._tls = ssl.create_default_context(
                cafile=session.get_config_variable("ca_bundle") or get_cert_path(verify=True)
            )

    def post(self, connection_id: str, message: bytes) -> None:
        """Send a message; raise ClientError or BotoCoreError as the SDK does."""
        self._call("POST", connection_id, message)

    def delete(self, connection_id: str) -> None:
        """End a connection; raise ClientError or BotoCoreError as the SDK does."""
        self._call("DELETE", connection_id, b"")

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _call(self, method: str, connection_id: str, body: bytes) -> None:
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        request = AWSRequest(method, f"{self.url}/%40connections/{quote(connection_id, safe='')}", {}, body)
        SigV4Auth(credentials.get_frozen_credentials(), "execute-api", self._region).add_auth(request)
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._open()
        try:
            connection.request(method, urlsplit(request.url).path, body, dict(request.headers.items()))
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException) as error:
            connection.close()
            self.close()  # the server has probably closed the others too
            wrong = SSLError if isinstance(error, ssl.SSLCertVerificationError) else EndpointConnectionError
            raise wrong(endpoint_url=self.url, error=error) from error
        self._idle.append(connection)
        if answer.status >= 300:
            raise build_error(OPERATIONS[method], answer, content)

    def _open(self) -> HTTPConnection:
        where = urlsplit(self.url)
        host, port = where.hostname or "", where.port
        if self._tls is None:
            return HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        proxy = urllib.request.getproxies().get("https")
        if proxy is None or urllib.request.proxy_bypass(host):
            return HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=self._tls)
        by = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        tunnel = HTTPSConnection(by.hostname or "", by.port, timeout=TIMEOUT_SECONDS, context=self._tls)
        login = b64encode(unquote(f"{by.username}:{by.password}").encode()).decode()
        tunnel.set_tunnel(host, port, {"Proxy-Authorization": f"Basic {login}"} if by.username else {})
        return tunnel


def build_error(operation: str, answer: HTTPResponse, content: bytes) -> ClientError:
    """Return the error that the SDK would raise."""
    body: dict[str, Any] = {}
    with suppress(ValueError, TypeError):
        body = dict(json.loads(content))
    code = answer.headers.get("x-amzn-ErrorType", "").partition(":")[0] or answer.reason
    error = {"Code": code, "Message": str(body.get("message") or body.get("Message") or answer.reason)}
    return ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": answer.status}}, operation)
