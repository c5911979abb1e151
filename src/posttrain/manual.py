"""The book's pages of the command line: ``python -m posttrain.manual FOLDER`` writes one a command.

They are made of what ``--help`` prints, and so say what the commands of this version understand.
"""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from posttrain import cli
from posttrain.commands.pages import PAGES
from posttrain.config import help as layout
from posttrain.storage.files import whole_file

#: Begins titles of groups that only ``--help_all`` shows, and pages leave out: there are too many.
LIBRARIES = "settings of "


def main(arguments: Sequence[str]) -> int:
    """Write the pages into the folder that is the only argument, and return 0."""
    (folder,) = map(Path, arguments)
    for command in cli.COMMANDS:
        with whole_file(folder / f"{command}.md") as file:
            file.write(page(command))
    return 0


def page(command: str) -> str:
    """The page of a command, in MyST Markdown; its subcommands are sections."""
    text = help_of(command)
    parts = [f"# posttrain {command}", *_parts(command, text, "##")]
    for name in subcommands(text):
        whole = f"{command} {name}"
        parts += [f"## posttrain {whole}", *_parts(whole, help_of(whole), "###")]
    return "\n\n".join(parts) + "\n"


def help_of(command: str) -> str:
    """What ``--help_all``, or else ``--help``, prints of a command, with each text in one line."""
    wide = 10_000
    for option in ("--help_all", "--help"):
        out = StringIO()
        with (
            patch.object(layout, "WIDEST", wide),
            patch.dict(os.environ, {"COLUMNS": str(wide)}),
            patch.object(sys, "stderr", StringIO()),
            redirect_stdout(out),
            suppress(SystemExit),
        ):
            cli.main([*command.split(), option])
        if out.getvalue():
            return out.getvalue()
    raise RuntimeError(f"posttrain {command} has no help")


def subcommands(text: str) -> list[str]:
    """The names that a page of help lists below the argument that stands for one of them."""
    return re.findall(r"^    (\S+)", text.partition("\noptions:")[0], flags=re.MULTILINE)


def _parts(command: str, text: str, level: str) -> Iterator[str]:
    """Description, usage, examples, and the options in their groups."""
    usage, description, *groups = text.rstrip().split("\n\n")
    yield marked(description)
    yield f"```shell\n{usage.removeprefix('usage: ')}\n```"
    # Studies share a page of help, whose examples stand above them.
    if examples := PAGES[command].examples if command in PAGES else ():
        yield f"{level} Examples"
        if after := PAGES[command].after:
            links = " and ".join(f"[posttrain {name}](/book/commands/{name}.md)" for name in after)
            yield f"They need what the examples of {links} leave."
        yield "```shell\n" + "\n".join(map(layout.broken, examples)) + "\n```"
    yield f"```{{program}} posttrain {command}\n```"
    for group in groups:
        title, _, content = group.partition(":\n")
        if not title.startswith(("examples", LIBRARIES)):
            yield f"{level} {title[0].upper()}{title[1:]}"
            yield from map(_entry, re.split(r"\n(?= {2,4}[^ ])", content))


def _entry(lines: str) -> str:
    """An option with its meaning, which begins behind two spaces or in the next line."""
    name, _, meaning = re.sub(r"\n *|  +", "\n", lines.strip()).partition("\n")
    if lines.startswith("    "):
        return f"- `{name}`: {marked(meaning)}"
    kind = "option" if name.startswith("-") else "describe"
    return f"````{{{kind}}} {name}\n{marked(meaning)}\n````"


def marked(text: str) -> str:
    r"""A text of help as Markdown, with names of options and settings as code.

    >>> marked("in --output_dir; see max_steps * 2")
    'in `--output_dir`; see `max_steps` \\* 2'
    """
    escaped = re.sub(r"([\\`*<\[{$])", r"\\\1", text)
    return re.sub(r"(?<![\w/.-])(--\w+|[a-z]+(?:_[a-z]+)+)(?![\w/.-]*[/.]\w)", r"`\1`", escaped)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
