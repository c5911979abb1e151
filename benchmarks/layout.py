"""How long it takes to lay groups out in rows, tokenisation aside.

Run: ``python benchmarks/layout.py``. It prints seconds on one core for filling rows from all groups
at once, and for making batches of 64 groups in every preset, with and without shared rows.
"""

import argparse
import time

import numpy as np
import torch

from posttrain.rows.layout import LAYOUTS, lay_out
from posttrain.rows.packing import pack_sequences
from posttrain.rows.tokenization import TokenizedGroup


def main() -> None:
    """Draw groups, time both, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--row-tokens", type=int, default=4096)
    given = parser.parse_args()
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    prompts = generator.integers(50, 500, given.groups)
    counts = generator.integers(2, 4, given.groups)
    groups = [
        TokenizedGroup(
            tuple(range(prompt)),
            tuple(tuple(range(size)) for size in generator.integers(20, 250, count)),
        )
        for prompt, count in zip(prompts.tolist(), counts.tolist(), strict=True)
    ]
    sizes = [group.total for group in groups]
    print(f"{given.groups:,} groups, {sum(sizes):,} tokens in single rows")

    start = time.perf_counter()
    rows = pack_sequences(sizes, given.pack_length)
    seconds = time.perf_counter() - start
    share = 1 - sum(sizes) / (len(rows) * given.pack_length)
    print(f"{seconds:6.2f} s  fill rows of {given.pack_length} from all groups, {share:.1%} empty")

    for name, layout in LAYOUTS.items():
        for room in (None, given.pack_length):
            start = time.perf_counter()
            for first in range(0, len(groups), given.batch):
                batch = groups[first : first + given.batch]
                lay_out(batch, layout, pad_token_id=0, pack_length=room)
            seconds = time.perf_counter() - start
            print(f"{seconds:6.2f} s  {name}{', shared rows' if room else ''}")


if __name__ == "__main__":
    main()
