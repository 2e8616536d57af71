"""What a user of the local run is told in one line."""


class TemplateError(Exception):
    """The template cannot be run here; the message names the resource and the reason."""


class LaunchError(Exception):
    """A part cannot be started as asked for; the message says which and why."""


class CommandError(Exception):
    """A command cannot be carried out; the message says why and what to do."""


def explain(error: BaseException) -> str:
    """Return an error's message; with its class only if the error is a fault of ours."""
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
