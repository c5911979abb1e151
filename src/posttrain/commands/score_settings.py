"""The settings of ``posttrain score``, and those that other commands share with it."""

from dataclasses import dataclass
from typing import Any

from posttrain.commands.common import (
    LAYOUT_HELP,
    LAYOUT_NAMES,
    ModelSettings,
    RecordSettings,
    RowSettings,
    files_of,
    refuse_overwriting,
    refuse_repeated,
)
from posttrain.config.fields import at_least_one, setting
from posttrain.errors import UserError
from posttrain.evaluation.calibration import FILE
from posttrain.evaluation.combining import THRESHOLD, Rule, RuleKind

#: The domain whose prompts count as flagged.
SAFETY = "safety"
#: Settings that say how two scores become one, and the rules that each is for.
RULES = {
    "threshold": ("switch", "gate"),
    "safety_weight": ("sum",),
    "flags": ("switch", "gate"),
}


@dataclass(frozen=True)
class ScoringSettings(RowSettings, RecordSettings, ModelSettings):
    """What is scored, with which model, and how."""

    layout: str = setting("separate", LAYOUT_HELP, LAYOUT_NAMES)
    data: list[str] = setting([], "Files (.jsonl, .jsonl.gz, .csv, .parquet) or other sources.")
    batch_tokens: int = setting(
        8192,
        "Most tokens computed at once, padding included (in rows that groups share: aside).",
    )
    seed: int = setting(
        0, "Seeds the score head where the checkpoint has none, and the order of shuffled rows."
    )
    device: str | None = setting(None, "cpu or cuda; by default a GPU if there is one.")

    def __post_init__(self) -> None:
        super().__post_init__()
        RecordSettings.__post_init__(self)
        ModelSettings.__post_init__(self)
        if not self.data:
            raise UserError("give data to score: files or other sources")
        refuse_repeated("data", self.data)
        at_least_one(self, "batch_tokens")

    def inputs(self) -> list[str]:
        """Files that are read, and other sources; no output may replace them."""
        given = [*self.data, *([self.chat_template] if self.chat_template else [])]
        return given + files_of(self.model)


@dataclass(frozen=True)
class CombinedSettings(ScoringSettings):
    """Whose score it is: one model's, calibrated or not, or two models' together.

    Settings that would have no effect are refused.
    """

    output: str | None = setting(None, "Where to write; - is standard output.")
    calibrated: bool = setting(
        False,
        "Calibrate the scores (see posttrain calibrate), so that a difference is the log odds of "
        "being preferred, and 0 is an average response. Two models' scores always are.",
    )
    calibration: str | None = setting(
        None, f"The model's calibration; by default {FILE} in its folder."
    )
    safety_model: str | None = setting(
        None,
        "A second model, of safety; the first is then one of helpfulness, and the score combines "
        "both. It shares all other settings with the first.",
    )
    safety_calibration: str | None = setting(
        None, f"The safety model's calibration; by default {FILE} in its folder."
    )
    rule: str | None = setting(
        None,
        "How helpfulness h and safety s, calibrated, become one score: sum (h + safety_weight × s; "
        "the default), switch (Llama 2: s where the response is unsafe or the prompt flagged, "
        "else h), or gate (the same, with every unsafe response below every safe one).",
        RuleKind,
    )
    threshold: float | None = setting(
        None,
        "A response is unsafe if the probability of preferring it, for its safety, to an average "
        f"one is below this. For switch and gate; by default {THRESHOLD}.",
    )
    safety_weight: float | None = setting(
        None, "What a unit of safety is worth in units of helpfulness. For sum; by default 1."
    )
    flags: bool = setting(
        True,
        f"Prompts of records whose domain is {SAFETY} count as flagged, so that safety alone "
        "decides. For switch and gate.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output is not None:
            refuse_overwriting(self.output, self.inputs())
        names = ("rule", *RULES, "calibration", "safety_calibration")
        values = {name: getattr(self, name) for name in names}
        # What nobody had to set is None, and for flags True.
        given = [name for name, value in values.items() if value is not None and value is not True]
        if self.safety_model is None:
            idle = [name for name in given if not (self.calibrated and name == "calibration")]
            if idle:
                also = ", or calibrated for one model's" if "calibration" in idle else ""
                raise UserError(
                    f"{', '.join(idle)}: given without safety_model, so it would have no effect; "
                    f"set safety_model to combine two models' scores{also}, or leave it out"
                )
            return
        chosen = self.combination()
        for name, rules in RULES.items():
            if name in given and chosen.kind not in rules:
                raise UserError(
                    f"{name} has no effect with the rule {chosen.kind}; leave it out, or set rule "
                    f"to {' or '.join(rules)}"
                )

    def inputs(self) -> list[str]:
        """See :meth:`ScoringSettings.inputs`."""
        calibrations = (self.calibration, self.safety_calibration)
        given = [path for path in calibrations if path is not None]
        return super().inputs() + given + files_of(self.safety_model)

    def combination(self) -> Rule:
        """How two scores become one."""
        given: dict[str, Any] = {
            "kind": self.rule,
            "threshold": self.threshold,
            "weight": self.safety_weight,
        }
        return Rule(**{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class ScoreSettings(CombinedSettings):
    """Settings of ``posttrain score``."""

    data: list[str] = setting(
        [],
        "What to score: files (.jsonl, .jsonl.gz, .csv, .parquet) or other sources. A record holds "
        "a prompt and a response (or completion), or responses, a list; a conversation (messages), "
        "whose last turn is scored; or chosen and rejected. Scores or ranks that a list has are "
        "not used.",
    )
    output: str = setting(
        "scores.jsonl",
        "Where to write, in the order of the data, one line for each response: id, of its record; "
        "response, the field that holds it, such as response, responses[0] or chosen; score; and "
        "trimmed (tokens that its prompt lost on the left to fit). With a safety_model also "
        "helpfulness and safety. - is standard output.",
    )
    best: bool = setting(
        False,
        "Write instead one line for each prompt, with its best response, as posttrain sft reads "
        "it: id, prompt, response (the text), score, and margin (by how much the next best "
        "response scores lower; null if there is none). Records that follow one another with the "
        "same prompt are taken together, a text that occurs again counts once, and of equal "
        "scores the first is the best.",
    )
    top: int | None = setting(
        None,
        "As best, but so many responses to each prompt, one a line, the best first; rank, from 1, "
        "stands in place of margin.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one(self, "top")
        if self.output is not None and self.output.endswith((".csv", ".parquet", ".gz")):
            raise UserError(f"output {self.output} would hold JSON lines; let it end with .jsonl")
        if self.best and self.top is not None:
            raise UserError("best and top exclude each other; leave one out")
