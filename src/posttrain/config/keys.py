"""Keys of arms, tables and metrics."""

from enum import StrEnum


class Key(StrEnum):
    """A key that is its string everywhere, also where it is printed inside a list.

    >>> class Arm(Key):
    ...     PLAIN = "no margin"
    >>> [Arm.PLAIN], f"{Arm.PLAIN!r}", Arm.PLAIN == "no margin"
    (['no margin'], "'no margin'", True)
    """

    def __repr__(self) -> str:
        return repr(self.value)
