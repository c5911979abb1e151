"""Call the command line as a shell would."""

import pytest

from posttrain import cli


def run(*arguments):
    """Run a command and return its exit code."""
    return cli.main([str(argument) for argument in arguments])


def refused(*arguments):
    """The exit code of a command line that is not understood, or asks for help."""
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    return stop.value.code
