"""The command line: ``posttrain COMMAND …``. Each command is a module of :mod:`.commands`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from posttrain.errors import UserError

#: What each command does; its module, of the same name with _ for -, has
#: ``main(arguments) -> exit code``.
#: Modules are imported when they are called, so that --help answers at once.
COMMANDS = {
    "data": "check, convert or simulate preference data",
    "train": "train a reward model",
    "calibrate": "give the scores of a reward model a unit and a zero",
    "score": "score the responses of files",
    "rounds": "rounds of annotation, reward model, rejection sampling, SFT and DPO",
    "evaluate": "report how well a reward model ranks held-out responses",
    "sample": "sample responses of a language model, and score and select them",
    "sft": "finetune a language model on demonstrations",
    "dpo": "train a language model on preferences by DPO",
    "average": "average the weights of models",
    "study": "run a study and write its run record",
    "gpu-study": "measure what a GPU can in some minutes, and keep the records",
    "claims": "say which claims hold up, and on what rows of which records that rests",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 means success, 1 that the input was refused (the reason is on standard error), 2 that the
    command line could not be understood, 130 that it was interrupted (Ctrl-C).
    """
    width = max(map(len, COMMANDS)) + 2
    listed = "\n".join(f"  {name:{width}}{purpose}" for name, purpose in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="posttrain",
        description="Train reward models on ranked responses, and ask what each choice is worth.",
        epilog=f"commands (each has --help):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="see below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="…", help="its own arguments")
    known = parser.parse_args(arguments)
    try:
        module = known.command.replace("-", "_")
        code = import_module(f"posttrain.commands.{module}").main(known.rest)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Who reads the output, such as head, has seen enough; Python would complain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as error:
        code, words = _explained(error)
        if code is None:
            raise
        print(f"posttrain: {words}", file=sys.stderr)
        return code


def _explained(error: BaseException) -> tuple[int | None, str]:
    """Exit code and words for an error; no code for one that only its traceback explains."""
    from jinja2 import TemplateError

    cause: BaseException | None = error
    while cause is not None:
        # Libraries that are interrupted raise errors of their own while they clean up.
        if isinstance(cause, KeyboardInterrupt):
            return 130, "interrupted"
        cause = cause.__context__
    if isinstance(error, UserError | OSError):
        return 1, str(error)
    if isinstance(error, TemplateError):
        return 1, f"the chat template cannot render a conversation: {error}; see chat_template"
    # Libraries import what few need only where a setting asks for it, such as optim. What this
    # package itself lacks is a mistake in it.
    if isinstance(error, ImportError) and not (error.name or "").startswith("posttrain"):
        return 1, f"a package that this needs is missing: {error}"
    return None, ""


def entry() -> None:
    """Entry point of the console script."""
    sys.exit(main())
