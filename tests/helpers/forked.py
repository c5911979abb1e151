"""A process of its own that starts at once, being a copy of this one."""

import os
import signal
import sys
import traceback


def started(function, *arguments, **named):
    """Start to call a function in a copy of this process; its id."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        # A copy that waits for something of the original would wait for ever.
        signal.alarm(120)
        status = 1
        try:
            status = function(*arguments, **named) or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return child


def ended(child):
    """The exit status of a process that :func:`started` started."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def forked(function, *arguments, **named):
    """Call a function in a copy of this process.

    Returns:
        Its exit status: what the function returns, 1 if it raised, or minus the signal that ended
        the process.
    """
    return ended(started(function, *arguments, **named))


def die(*_, **__):
    """End this process as if its machine had been switched off."""
    os.kill(os.getpid(), signal.SIGKILL)
