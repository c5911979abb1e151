"""``python -m posttrain``: the command line, for launchers that start modules."""

from posttrain.cli import entry

entry()
