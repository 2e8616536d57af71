"""What keeps the local run from starting."""


class TemplateError(Exception):
    """The template cannot be run here; the message names the resource and the reason."""


class LaunchError(Exception):
    """A part cannot be started as asked for; the message says which and why."""
