"""Direct preference optimisation as Llama 3 does it (section 4.1.4), on TRL's trainer.

For a prompt x with chosen y⁺ and rejected y⁻, a policy π and its reference π₀,

    loss = −log σ(β [s(y⁺) − s(y⁻)]) + w · NLL(y⁺),   s(y) = log π(y | x) − log π₀(y | x)

summed over the tokens of each response. The second term is that of
:cite:t:`Pang et al. (2024) <pang2024iterative>`. Llama 3 masks header and end-of-turn tokens in
both responses out of the first term: they stand in both, so the loss would push the same token up
and down, and policies repeat their tail or stop abruptly. The headers of a response belong to its
prompt here, so what is masked is its end. The paper does not say whether the mask holds for the
second term as well; here it does not, so that the policy still learns to end.
"""

from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer

from posttrain.config.fields import setting
from posttrain.errors import UserError
from posttrain.models.float64 import compute_in_double
from posttrain.policy.sft import trained
from posttrain.policy.trainers import PolicyTrainer, no_word_of_renames, settle_precision
from posttrain.policy.trl_models import copied, log_probs_in_double

#: What the negative log-likelihood of chosen responses is averaged over.
NORMALIZATIONS = ("sequence", "token")


@dataclass
class PreferenceConfig(DPOConfig):
    """Settings of :class:`PreferenceTrainer`: TRL's, with Llama 3's numbers as defaults."""

    learning_rate: float = setting(1e-5, "Peak learning rate (Llama 3: 1e-5).")
    mask_format_tokens: bool = setting(
        True, "Leave end-of-turn tokens of both responses out of the preference loss (Llama 3)."
    )
    nll_weight: float = setting(
        0.2, "Weight of the negative log-likelihood of chosen responses (Llama 3: 0.2); 0: none."
    )
    nll_normalization: str = setting(
        "sequence",
        "Average that likelihood over the tokens of each response and then over responses "
        "(sequence; Pang et al., 2024), or over all tokens of a batch (token; TRL's sft loss).",
        NORMALIZATIONS,
    )

    bf16: bool | None = setting(  # type: ignore[assignment]
        None, "Compute in bfloat16; by default on a GPU that has it."
    )
    gradient_checkpointing: bool | None = setting(  # type: ignore[assignment]
        None, "Compute layers again rather than keep what they computed; by default on a GPU."
    )

    def __post_init__(self) -> None:
        settle_precision(self)
        super().__post_init__()
        if list(self.loss_type) != ["sigmoid"]:
            raise UserError(
                f"loss_type {self.loss_type} is not sigmoid; give nll_weight for a term on chosen "
                "responses, or take TRL's own DPOTrainer"
            )
        if self.precompute_ref_log_probs and self.mask_format_tokens:
            raise UserError(
                "precompute_ref_log_probs keeps sums over all tokens, from which the masked ones "
                "cannot be taken; leave it out, or set mask_format_tokens to false"
            )
        if not self.nll_weight >= 0:
            raise UserError(f"nll_weight must be at least 0, not {self.nll_weight}")
        if self.nll_normalization not in NORMALIZATIONS:
            raise UserError(
                f"unknown nll_normalization {self.nll_normalization!r}; known: "
                f"{', '.join(NORMALIZATIONS)}"
            )


class PreferenceTrainer(PolicyTrainer, DPOTrainer):
    """TRL's trainer with format tokens masked out of the preference loss, and an NLL term."""

    args: PreferenceConfig
    model: PreTrainedModel
    processing_class: PreTrainedTokenizerBase

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._format_ids = torch.tensor(sorted(special_ids(self.processing_class)))

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool) -> Any:
        completions = inputs["completion_mask"]
        compared = self._without_format(inputs)
        labels = inputs["input_ids"].masked_fill(completions == 0, -100)
        log_probs: list[Tensor] = []

        def forward(**arguments: Any) -> Any:
            """The policy, computed once for both terms: of all tokens, then of those compared."""
            if "labels" not in arguments:
                return model(**arguments)
            outputs = model(**arguments | {"labels": labels})
            mask = compared["completion_mask"][:, 1:]
            log_probs.append(outputs.log_probs[:, -mask.shape[1] :])
            outputs.log_probs = log_probs[0] * mask
            return outputs

        result = super()._compute_loss(forward, compared, return_outputs)
        if not self.args.nll_weight:
            return result
        chosen, _ = log_probs[0].chunk(2)
        nll = chosen_nll(chosen, completions[:, 1:].chunk(2)[0], self.args.nll_normalization)
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["nll"].append(self.accelerator.gather(nll.detach()).mean().item())
        if return_outputs:
            return result[0] + self.args.nll_weight * nll, result[1]
        return result + self.args.nll_weight * nll

    def _without_format(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        mask = inputs["completion_mask"]
        if not self.args.mask_format_tokens:
            return inputs
        return inputs | {
            "completion_mask": mask
            * ~format_tokens(inputs["input_ids"], mask, self._format_ids.to(mask.device))
        }


def chosen_nll(log_probs: Tensor, mask: Tensor, normalization: str) -> Tensor:
    """Negative log-likelihood of responses, averaged as :class:`PreferenceConfig` says.

    Args:
        log_probs: Of each token, 0 where ``mask`` is 0, ``[responses, tokens]``.
        mask: 1 at tokens of the response, ``[responses, tokens]``.
        normalization: ``sequence`` or ``token``.

    >>> log_probs = torch.tensor([[-1.0, -3.0], [-4.0, 0.0]])
    >>> chosen_nll(log_probs, torch.tensor([[1, 1], [1, 0]]), "token")
    tensor(2.6667)
    """
    if normalization == "token":
        return -log_probs.sum() / mask.sum()
    return -(log_probs.sum(1) / mask.sum(1)).mean()


def format_tokens(ids: Tensor, completions: Tensor, special: Tensor) -> Tensor:
    """Which tokens of responses the chat format writes: special ones, and all behind the last.

    >>> ids = torch.tensor([[7, 5, 8, 5, 9, 0]])  # 5 ends a turn; a template adds 9, a line break
    >>> format_tokens(ids, torch.tensor([[0, 0, 1, 1, 1, 0]]), torch.tensor([5]))
    tensor([[False, False, False,  True,  True, False]])
    """
    inside = completions.bool()
    ends = torch.isin(ids, special) & inside
    so_far, total = ends.cumsum(1), ends.sum(1, keepdim=True)
    return ends | (inside & (total > 0) & (so_far == total))


def special_ids(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Ids of the tokens that the chat format is made of, rather than text."""
    ids = set(tokenizer.all_special_ids)
    added = tokenizer.added_tokens_decoder.items()
    return ids | {number for number, token in added if token.special}


def optimize(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    preferences: Dataset,
    config: PreferenceConfig,
    *,
    reference: PreTrainedModel | None = None,
    checkpoint: str | None = None,
) -> PreferenceTrainer:
    """Train a language model in place on preferences, and return its trainer.

    ``preferences`` are those of :func:`.datasets.preference_set`; the ``reference`` is the model as
    it was unless another is given. With a ``checkpoint`` of the same run, training goes on from it.
    """
    return trained(preference_trainer(model, tokenizer, preferences, config, reference), checkpoint)


@no_word_of_renames()
def preference_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    preferences: Dataset,
    config: PreferenceConfig,
    reference: PreTrainedModel | None = None,
    **others: Any,
) -> PreferenceTrainer:
    """The trainer of :func:`optimize`, for :func:`.sft.trained`; ``others`` are its own arguments.

    With a ``peft_config`` the reference, unless given, is the model without its adapters.
    """
    compute_in_double(model)
    adapted = others.get("peft_config") is not None
    if reference is None and not adapted and not config.precompute_ref_log_probs:
        # TRL would read it anew from where the model once came from.
        reference = copied(model)
    trainer = PreferenceTrainer(
        model,
        ref_model=None if reference is None else compute_in_double(reference),
        args=config,
        train_dataset=preferences,
        processing_class=tokenizer,
        **others,
    )
    if trainer.ref_model is not None:
        log_probs_in_double(trainer.ref_model)
    return trainer
