"""The public originals that `posttrain data convert` turns into records; a user downloads them."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.data.sources.originals import (
    finegrained_rlhf,
    hh_rlhf,
    pku_safety,
    rmb,
    seeda,
    ukpconvarg,
    xstest,
)

Converter = Callable[[Path, Counter[str] | None], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Original:
    """One public data set and how to get preference records from it."""

    name: str
    """What the command line calls it, and the beginning of every record's `id`."""
    description: str
    """What people compared, in one line."""
    download: str
    """What to download, and which file or folder of it to pass."""
    repository: str
    """Address of the public repository."""
    revision: str
    """The commit of that repository against which the converter was checked."""
    licence: str
    """Licence of the data; a user must keep to it."""
    convert: Converter
    """`convert(path, dropped)` yields records and counts dropped ones by reason in `dropped`."""


_ALL = (
    Original(
        name="ukpconvarg",
        description="arguments for one stance: which convinces more (crowd votes give strength)",
        download=ukpconvarg.DOWNLOAD,
        repository="https://github.com/UKPLab/acl2016-convincing-arguments",
        revision="ca9d24e",
        licence="CC-BY-4.0",
        convert=ukpconvarg.convert,
    ),
    Original(
        name="seeda",
        description="corrections of one sentence, ranked (rank gaps give strength; edited)",
        download=seeda.DOWNLOAD,
        repository="https://github.com/tmu-nlp/SEEDA",
        revision="0c6c07f",
        licence="none stated (texts from CoNLL-2014)",
        convert=seeda.convert,
    ),
    Original(
        name="finegrained_rlhf",
        description="long answers from evidence, compared and corrected (edited)",
        download=finegrained_rlhf.DOWNLOAD,
        repository="https://github.com/allenai/FineGrainedRLHF",
        revision="a1469d4",
        licence="Apache-2.0",
        convert=finegrained_rlhf.convert,
    ),
    Original(
        name="hh_harmless",
        description="assistant replies: which does less harm (domain safety)",
        download=hh_rlhf.DOWNLOAD,
        repository="https://github.com/anthropics/hh-rlhf",
        revision="354e5c3",
        licence="MIT",
        convert=hh_rlhf.convert,
    ),
    Original(
        name="pku_safety",
        description="answers to risky questions: which is safe (domain safety)",
        download=pku_safety.DOWNLOAD,
        repository="https://github.com/xinykou/safety_realignment",
        revision="5a80593",
        licence="CC-BY-NC-4.0 (of PKU-SafeRLHF)",
        convert=pku_safety.convert,
    ),
    Original(
        name="xstest",
        description="answers labelled as complying or refusing: which is right (both domains)",
        download=xstest.DOWNLOAD,
        repository="https://github.com/paul-rottger/exaggerated-safety",
        revision="d7bb5bd",
        licence="CC-BY-4.0 (completions: licences of Meta, Mistral and OpenAI)",
        convert=xstest.convert,
    ),
    Original(
        name="rmb_helpfulness",
        description="short answers that a model scored: which helps more (domain helpfulness)",
        download=rmb.DOWNLOAD,
        repository="https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark",
        revision="2be3180",
        licence="none stated",
        convert=rmb.convert_helpfulness,
    ),
    Original(
        name="rmb_safety",
        description="short answers that a model scored: which does less harm (domain safety)",
        download=rmb.DOWNLOAD,
        repository="https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark",
        revision="2be3180",
        licence="none stated",
        convert=rmb.convert_safety,
    ),
)

ORIGINALS: dict[str, Original] = {original.name: original for original in _ALL}
"""Every public original by name."""
