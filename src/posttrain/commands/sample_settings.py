"""The settings of ``posttrain sample``."""

from dataclasses import dataclass

from posttrain.commands.common import (
    RecordSettings,
    files_of,
    refuse_overwriting,
    refuse_repeated,
)
from posttrain.commands.language_models import LanguageModelSettings
from posttrain.config.fields import at_least_one, setting
from posttrain.errors import UserError
from posttrain.policy.sampling import SamplingSettings
from posttrain.policy.selection import COMBINED

KEPT = ("all", "best")
#: Most prompts that are in memory with their samples.
MOST_PROMPTS = 1024


@dataclass(frozen=True)
class SampleSettings(SamplingSettings, RecordSettings, LanguageModelSettings):
    """What is sampled, from which model, and what of it is written."""

    data: list[str] = setting(
        [],
        "Where prompts come from, each distinct one once: files (.jsonl, .jsonl.gz, .csv, "
        ".parquet) of preferences, or of records with a prompt alone, data sets of the hub "
        "(owner/name), human data by name, or simulator:COUNT.",
    )
    output: str = setting("samples.jsonl", "Where to write one line for each prompt.")
    prompts: int | None = setting(None, "Most prompts, the first ones; by default all.")
    reward_model: list[str] = setting(
        [], "Reward models that score the samples: folders, or names on the hub."
    )
    combine: str | None = setting(
        None,
        f"What several reward models' scores become: {', '.join(COMBINED)}. By default the mean.",
    )
    keep: str = setting(
        "all",
        "Which responses to write: all of them, or the best finished one to each prompt.",
        KEPT,
    )
    share: float = setting(
        1.0, "With keep best: share of the prompts that is kept, those whose best scores highest."
    )
    skip_too_long: bool = setting(
        False,
        "Leave out, and count, prompts that leave no room for max_new_tokens. Otherwise the first "
        "one is an error.",
    )
    device: str | None = setting(None, "cpu or cuda; by default a GPU if there is one.")

    def __post_init__(self) -> None:
        super().__post_init__()
        RecordSettings.__post_init__(self)
        LanguageModelSettings.__post_init__(self)
        if not self.data:
            raise UserError("give data to take prompts from: files or other sources")
        refuse_repeated("data", self.data)
        refuse_repeated("reward_model", self.reward_model)
        at_least_one(self, "prompts")
        if self.keep not in KEPT:
            raise UserError(f"unknown keep {self.keep!r}; known: {', '.join(KEPT)}")
        if self.keep == "best" and not self.reward_model:
            raise UserError("keep best needs scores to choose by; give a reward_model")
        if not 0 < self.share <= 1:
            raise UserError(f"share must be above 0 and at most 1, not {self.share}")
        if self.share < 1 and self.keep != "best":
            raise UserError(f"share {self.share} has no effect without keep best; leave it out")
        if self.combine is not None and self.combine not in COMBINED:
            raise UserError(f"unknown combine {self.combine!r}; known: {', '.join(COMBINED)}")
        if self.combine is not None and len(self.reward_model) < 2:
            raise UserError("combine has no effect with fewer than two reward models; leave it out")
        if not self.output.endswith(".jsonl"):
            raise UserError(f"output {self.output} must end with .jsonl, as it holds JSON lines")
        scorers = [file for name in self.reward_model for file in files_of(name)]
        refuse_overwriting(self.output, [*self.data, *self.inputs(), *scorers])

    @property
    def chunk(self) -> int:
        """Prompts that are in memory with their samples: those of a few forward passes."""
        return min(MOST_PROMPTS, 4 * max(1, self.sampling_batch // self.samples))
