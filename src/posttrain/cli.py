"""The command line: ``posttrain COMMAND …``. Each command is a module of :mod:`.commands`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata

from posttrain.commands.pages import PAGES
from posttrain.config.help import Formatter
from posttrain.errors import UserError

#: What each command does, in groups; its module, of the same name with _ for -, has
#: ``main(arguments) -> exit code``. Modules are imported when they are called, so that --help
#: answers at once.
GROUPS = {
    "data": {"data": "check, convert or simulate preference data"},
    "reward models": {
        "train": "train a reward model",
        "evaluate": "report how well a reward model ranks held-out responses",
        "score": "score the responses of files",
        "calibrate": "give the scores of a reward model a unit and a zero",
    },
    "policies": {
        "sample": "sample responses of a language model, and score and select them",
        "sft": "finetune a language model on demonstrations",
        "dpo": "train a language model on preferences by DPO",
        "rounds": "rounds of annotation, reward model, rejection sampling, SFT and DPO",
        "average": "average the weights of models",
    },
    "studies": {
        "study": "run a study and write its run record",
        "claims": "say which claims hold up, and on what rows of which records that rests",
        "gpu-study": "measure what a GPU can in some minutes, and keep the records",
    },
}
COMMANDS = {name: purpose for group in GROUPS.values() for name, purpose in group.items()}
#: Packages whose versions decide what comes out.
PACKAGES = ("posttrain", "torch", "transformers", "trl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 means success, 1 that the input was refused (the reason is on standard error), 2 that the
    command line could not be understood, 130 that it was interrupted (Ctrl-C).
    """
    width = max(map(len, COMMANDS)) + 2
    listed = [
        "\n".join([f"{title}:", *(f"  {name:{width}}{purpose}" for name, purpose in group.items())])
        for title, group in GROUPS.items()
    ]
    parser = argparse.ArgumentParser(
        prog="posttrain",
        usage="posttrain COMMAND [settings]; posttrain COMMAND --help explains a command",
        description="Train reward models on ranked responses, and ask what each choice is worth.",
        epilog="\n\n".join([*listed, PAGES[""].epilog]),
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show versions and exit")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    rest = parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    rest.required = False
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


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        for package in PACKAGES:
            try:
                print(package, metadata.version(package))
            except metadata.PackageNotFoundError:
                print(package, "not installed")
        parser.exit()


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
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            # As files are, whatever the locale: texts and help have more than ASCII.
            stream.reconfigure(encoding="utf-8")
    sys.exit(main())
