"""Collects a function's environment variables.

https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Mapping

from local.lambda_.function import Function


def collect_variables(function: Function, extra: Mapping[str, str], runtime_api: str) -> dict[str, str]:
    """Return the variables of Lambda, those of the template, and `extra`. Those that Lambda reserves take precedence.

    PATH, LANG and similar variables are not here: the image sets them, or processes.py in its place.

    Raises:
        ValueError: no process can have a variable with this name or value.
    """
    reserved = {
        "_HANDLER": f"{function.target}.handler",
        "AWS_DEFAULT_REGION": function.region,
        "AWS_EXECUTION_ENV": "AWS_Lambda_Image",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": function.logging.get("LogFormat", "Text"),
        "AWS_LAMBDA_LOG_GROUP_NAME": function.logging.get("LogGroup", f"/aws/lambda/{function.name}"),
        "AWS_LAMBDA_LOG_STREAM_NAME": f"{time.strftime('%Y/%m/%d', time.gmtime())}/[$LATEST]{uuid.uuid4().hex}",
        "AWS_LAMBDA_RUNTIME_API": runtime_api,
        "AWS_REGION": function.region,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LAMBDA_TASK_ROOT": "/var/task",
    }
    if reserved["AWS_LAMBDA_LOG_FORMAT"] == "JSON":  # without this level the root logger would stay at WARNING
        reserved["AWS_LAMBDA_LOG_LEVEL"] = function.logging.get("ApplicationLogLevel", "INFO")
    defaults = {"AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR", "TZ": ":UTC"}
    variables = {**defaults, **function.environment, **extra, **reserved}
    for name, value in variables.items():
        if not isinstance(value, str) or re.search(r"[\0\ud800-\udfff]", name + value) or "=" in name:
            rule = "a name has no '=', and a value is text without null characters and lone surrogates"
            raise ValueError(f"environment variable {name!r} cannot be set: {rule}")
    return variables
