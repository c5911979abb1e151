"""The one kind of error that a user can mend."""


class UserError(ValueError):
    """Input, settings or a folder do not allow what was asked for; the message says what to do.

    The command line prints its message and exits with 1. Any other error is a mistake in this
    package or a library, and keeps its traceback.
    """

    def _render_traceback_(self) -> list[str]:
        """What notebooks show: the sentence, since lines of code would not help to mend it."""
        return [f"{type(self).__name__}: {self}"]
