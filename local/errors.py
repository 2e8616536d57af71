"""Errors that the user of the local run sees as one line."""


class TemplateError(Exception):
    """The template cannot be run locally. The message names the resource and the reason."""


class LaunchError(Exception):
    """A part of the local run cannot be started. The message says which part and why."""


class CommandError(Exception):
    """A command cannot be carried out. The message says why and what to do."""


def explain(error: BaseException) -> str:
    """Return an error's message. The error's class is added only if the error is a bug of the local run."""
    match error:
        case BaseExceptionGroup():
            return explain(error.exceptions[0])
        case TimeoutError() if not str(error):
            return "no answer in time"
        case OSError(strerror=str(reason)):
            return f"{error.filename}: {reason}" if error.filename else reason
        case ArithmeticError() | AttributeError() | LookupError() | NameError() | TypeError() | ValueError():
            return f"{type(error).__name__}: {error}"
    return str(error) or type(error).__name__
