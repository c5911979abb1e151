"""``posttrain data``: check, convert or simulate preference data."""

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence


def _data_check(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from posttrain.data_report import check

    return check(known.files, skip_bad=known.skip_bad)


def _data_convert(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from posttrain.preferences import RankedGroup, from_record
    from posttrain.reading import write_groups
    from posttrain.sources.originals import ORIGINALS

    if known.name not in ORIGINALS:
        raise ValueError(f"unknown original {known.name!r}; known: {', '.join(ORIGINALS)}")
    dropped: Counter[str] = Counter()
    written = 0

    def groups() -> Iterator[RankedGroup]:
        nonlocal written
        for record in ORIGINALS[known.name].convert(known.path, dropped):
            yield from_record(record, where=f"{known.name}, {record.get('id')}")
            written += 1

    write_groups(known.output, groups())
    print(f"wrote {written} records to {known.output}")
    for reason, count in sorted(dropped.items()):
        print(f"dropped {count}: {reason}")
    return 0


def _data_simulate(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from posttrain.reading import write_groups
    from posttrain.sources.simulator import simulate

    simulated = simulate(
        known.groups,
        seed=known.seed,
        domain=known.domain,
        edited_share=known.edited_share,
        sensitive=known.sensitive,
    )
    write_groups(known.output, (group.ranked for group in simulated))
    print(f"wrote {len(simulated)} records to {known.output}")
    return 0
