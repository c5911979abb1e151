"""How long 1,000 head fits take: 576 features, 10,000 pairs.

Run: python benchmarks/head_fits.py [--fits 1000] [--pairs 10000] [--features 576]

Pairs are drawn like those of a frozen backbone: correlated features whose scale falls over two
orders of magnitude, preferences that follow Bradley–Terry for a hidden head. Fits differ in margin,
in which pairs they see, and in penalty, over the grid of the margin study.
"""

import argparse
import json
import time

import torch

from posttrain.models.heads import fit_heads
from posttrain.studies.margin.heads import HeadSettings


def main() -> None:
    """Fit and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--features", type=int, default=576)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    falling = torch.logspace(0, -2, options.features)
    differences = normal(options.pairs, options.features) * falling
    differences = differences @ normal(options.features, options.features)
    differences /= differences.std(dim=0)
    probability = torch.sigmoid(differences @ normal(options.features) * 0.1)
    preferred = torch.rand(options.pairs, generator=generator) < probability
    differences[~preferred] *= -1

    penalties = torch.tensor(HeadSettings().penalties)
    chosen = torch.arange(options.fits) % len(penalties)
    strength = torch.randint(0, 4, (options.pairs,), generator=generator)
    scale = torch.rand(options.fits, 1, generator=generator)
    seen = torch.rand(options.fits, options.pairs, generator=generator) < 0.67

    start = time.perf_counter()
    fits = fit_heads(
        differences,
        margins=scale * strength,
        weights=seen.float(),
        penalties=penalties[chosen],
    )
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "fits": options.fits,
                "pairs": options.pairs,
                "features": options.features,
                "threads": torch.get_num_threads(),
                "seconds": round(seconds, 1),
                "iterations": fits.iterations,
                "converged": bool(fits.converged.all()),
            }
        )
    )


if __name__ == "__main__":
    main()
