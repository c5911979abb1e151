"""The data sets of the hub that this package can convert and :func:`.hub.read.iterate` reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from posttrain.data.sources.hub import converters
from posttrain.data.sources.hub.converters import Convert

#: Raise when the rows of a data set become other groups: here, in :mod:`.converters`,
#: :mod:`.hub.rows`, :mod:`.hub.read` or :mod:`.originals.hh_rlhf`. What was stored of them is then
#: read anew.
VERSION = 1


@dataclass(frozen=True)
class Subset:
    """A part of a data set whose rows have one schema."""

    convert: Convert
    """Turns one row (or `rows` of them) into groups."""
    files: Mapping[str, str] | None = None
    """For each split its file in the repository; None where the data set itself names them."""
    rows: int = 1
    """How many consecutive rows make one comparison."""


@dataclass(frozen=True)
class HubSource:
    """One data set on the hub and how to get ranked groups from it."""

    name: str
    """Owner and name on the hub, and the beginning of every group's `id`."""
    description: str
    """What people compared, in one line."""
    licence: str
    """Licence of the data; a user must keep to it."""
    revision: str | None
    """The commit that is read unless another is asked for; None for the newest."""
    subsets: Mapping[str, Subset]
    """Its parts by name."""
    default: tuple[str, ...]
    """The parts that are read, in this order, unless one is asked for."""
    edits: str | None = None
    """The part whose edited responses are joined to the other ones when `default` is read."""


def _files(folder: str, *splits: str) -> dict[str, str]:
    return {split: f"{folder}/{split}.jsonl.gz" for split in splits}


_HH_RLHF = {
    "harmless-base": "safety",
    "helpful-base": "helpfulness",
    "helpful-online": "helpfulness",
    "helpful-rejection-sampled": "helpfulness",
}
_PKU_MODELS = {"alpaca-7b": "Alpaca-7B", "alpaca2-7b": "Alpaca2-7B", "alpaca3-8b": "Alpaca3-8B"}

# The commits are those that several public projects pin. The converters were written from the
# cards; of the files, only harmless-base/test.jsonl.gz of hh-rlhf has been converted so far.
_ALL = (
    HubSource(
        name="Anthropic/hh-rlhf",
        description="assistant replies: which does less harm, which helps more (no strength)",
        licence="MIT",
        revision="09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa",
        # Not red-team-attempts, which are single conversations and compare nothing.
        subsets={
            name: Subset(
                partial(converters.convert_hh_rlhf, domain=domain),
                _files(name, "train", "test"),
            )
            for name, domain in _HH_RLHF.items()
        },
        default=tuple(_HH_RLHF),
    ),
    HubSource(
        name="nvidia/HelpSteer2",
        description="assistant replies: which helps more (strength 2 to 4)",
        licence="CC-BY-4.0",
        revision="990b2711a36180dd19d9c94b8627844866f8982a",
        subsets={
            "preference": Subset(
                converters.convert_helpsteer2_preference,
                dict.fromkeys(("train", "validation"), "preference/preference.jsonl.gz"),
            ),
            "ratings": Subset(
                converters.convert_helpsteer2_ratings,
                {"train": "train.jsonl.gz", "validation": "validation.jsonl.gz"},
                rows=2,
            ),
        },
        default=("preference",),
    ),
    HubSource(
        name="nvidia/HelpSteer3",
        description="assistant replies: which helps more (strength 2 to 4; edited)",
        licence="CC-BY-4.0",
        revision="f6d145777bcbde96137596340fab89793acd1031",
        subsets={
            "preference": Subset(
                converters.convert_helpsteer3_preference,
                _files("preference", "train", "validation"),
            ),
            "edit": Subset(
                converters.convert_helpsteer3_edit, _files("edit", "train", "validation")
            ),
        },
        default=("preference", "edit"),
        edits="edit",
    ),
    HubSource(
        name="PKU-Alignment/PKU-SafeRLHF",
        description="answers to risky questions: which helps more, which does less harm",
        licence="CC-BY-NC-4.0",
        revision="9421ffafec3fa40a1f1a7d567b4d525079477ecb",
        subsets={
            name: Subset(
                converters.convert_pku_saferlhf,
                {split: f"data/{model}/{split}.jsonl" for split in ("train", "test")},
            )
            for name, model in _PKU_MODELS.items()
        },
        default=tuple(_PKU_MODELS),
    ),
)

HUB: dict[str, HubSource] = {source.name: source for source in _ALL}
"""Every data set of the hub that has a converter, by name."""
