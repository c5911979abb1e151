"""Named columns of sums over pairs, so that who reads them need not know their order."""

from types import SimpleNamespace

import numpy as np


class Columns:
    """Columns along the last axis of an array, in the order given.

    By name their number; None is a single one without an axis of its own.

    >>> columns = Columns(pairs=None, right=2)
    >>> sums = columns.join(pairs=np.array([3.0, 1.0]), right=np.array([[2, 1], [0, 1]]))
    >>> sums.shape, columns.split(sums).right[..., 0].tolist()
    ((2, 3), [2.0, 0.0])
    """

    def __init__(self, **widths: int | None) -> None:
        self._places: dict[str, int | slice] = {}
        self.width = 0
        for name, width in widths.items():
            start, self.width = self.width, self.width + (width or 1)
            self._places[name] = start if width is None else slice(start, self.width)

    def join(self, **parts: np.ndarray) -> np.ndarray:
        """One array ``[..., width]`` of parts ``[..., columns]``, or ``[...]`` for a single one."""
        if set(parts) != set(self._places):
            raise ValueError(f"expected {', '.join(self._places)}; got {', '.join(parts)}")
        whole = [
            parts[name][..., None] if isinstance(place, int) else parts[name]
            for name, place in self._places.items()
        ]
        stacked = np.ascontiguousarray(np.concatenate(whole, axis=-1, dtype=float))
        if stacked.shape[-1] != self.width:
            raise ValueError(f"expected {self.width} columns in all, got {stacked.shape[-1]}")
        return stacked

    def split(self, sums: np.ndarray) -> SimpleNamespace:
        """The parts of an array ``[..., width]`` by name, as views."""
        return SimpleNamespace(**{name: sums[..., place] for name, place in self._places.items()})
