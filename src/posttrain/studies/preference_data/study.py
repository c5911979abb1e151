"""What human data sets hold, recorded because the repository does not contain them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from posttrain.config.fields import setting
from posttrain.data import check
from posttrain.data.preferences import RankedGroup
from posttrain.data.sources import human
from posttrain.evaluation.length import length_accuracy
from posttrain.studies.common.study import Measured, Study


@dataclass(frozen=True)
class DataSettings:
    """Settings of the study."""

    resamples: int = setting(1000, "Bootstrap replicates over groups.")


def measure(source: str, settings: DataSettings, cache_dir: Path | None) -> Measured:
    """Summarise one human data set.

    Returns:
        Table ``summary`` has one row: the columns of :func:`.data.check.summarise` that concern
        accepted rows, ``texts`` (distinct responses) and ``edited_longer`` (share of edits with
        more characters than chosen, ties counted half, NaN without edits). Table ``length`` has how
        often the longer response is the chosen one, over all and by strength, with 95 % intervals.
    """
    groups, data = human.load(source)
    tables = {"summary": summary(groups), "length": length_accuracy(groups, settings.resamples)}
    return Measured(data, tables)


def summary(groups: Sequence[RankedGroup]) -> pd.DataFrame:
    """One row of counts, medians and shares; see :func:`measure`."""
    # A data set's own repeats and contradictions are counted where it is checked.
    apart = ["refused", "ignored_columns", *check.REPEATS]
    table = check.summarise(groups, "").table.drop(columns=apart)
    edits = [(len(g.edited or ""), len(g.chosen)) for g in groups if g.has_edit]
    longer = [(edit > chosen) + (edit == chosen) / 2 for edit, chosen in edits]
    texts = {response for group in groups for response in group.responses}
    return table.assign(
        texts=len(texts), edited_longer=np.mean(longer) if longer else np.nan
    ).reset_index(drop=True)


STUDY = Study(
    "data",
    "what a set of human preference data holds (--source: its name)",
    measure,
    simulated=DataSettings,
    human=DataSettings,
)
