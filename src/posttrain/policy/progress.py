"""How far a policy has come: what its round's reward model says of it, and how far it has moved."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from posttrain.evaluation.scoring import score_responses
from posttrain.models import reward_model
from posttrain.policy.folders import load_policy
from posttrain.policy.likelihood import log_probabilities
from posttrain.policy.prompts import EVALUATION
from posttrain.policy.rounds import RoundRecipe, Workshop
from posttrain.policy.sampling import SamplingSettings, prompt_tokens, sample

#: Answers to each evaluation prompt.
ANSWERS = 4


def measure_policy(
    workshop: Workshop, recipe: RoundRecipe, policy: Path, scorer: Path, number: int, prompts: int
) -> dict[str, Any]:
    """Means over answers of a policy, at temperature 1, to prompts that nothing else sees.

    Returns:
        ``reward``: by the reward model, less that of the first policy's answers to the same
        prompts; ``divergence``: estimated KL from the first policy, in nats; ``words``; ``ended``:
        the share that the policy ended; ``gold`` where the workshop knows it.
    """
    asked = workshop.draw(EVALUATION, prompts)
    settings = SamplingSettings(
        samples=ANSWERS,
        max_new_tokens=recipe.max_new_tokens,
        sampling_seed=recipe.seed,
    )

    def write(folder: Path) -> None:
        base: Any
        model: Any
        base, tokenizer = load_policy(workshop.checkpoint)
        base.to(workshop.device)
        model, _ = load_policy(policy)
        before = list(sample(base, tokenizer, asked, settings))
        after = list(sample(model.to(workshop.device), tokenizer, asked, settings))
        read = prompt_tokens(tokenizer, asked)
        flat = [(ids, one) for ids, own in zip(read, after, strict=True) for one in own]
        own = np.array([one.log_probability for _, one in flat])
        under_base = log_probabilities(base, [(ids, one.tokens) for ids, one in flat])
        judge: Any
        judge, reader = reward_model.load(scorer)
        judge.to(workshop.device)
        texts = [[[one.text for one in drawn] for drawn in part] for part in (before, after)]
        first, last = (
            np.concatenate(score_responses(judge, reader, asked, part)).mean() for part in texts
        )
        found = {
            "reward": float(last - first),
            "divergence": float((own - under_base).mean()),
            "words": _mean([len(one.text.split()) for _, one in flat]),
            "ended": _mean([one.finished for _, one in flat]),
        }
        if workshop.truth is not None:
            found["gold"] = _mean(
                [
                    workshop.truth(prompt, text)
                    for prompt, answers in zip(asked, texts[1], strict=True)
                    for text in answers
                ]
            )
        (folder / "means.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")

    decided_by = {"prompts": prompts, "sampling": asdict(settings)}
    path = workshop.make(f"round-{number}-measured", decided_by, [policy, scorer], write)
    return json.loads((path / "means.json").read_text(encoding="utf-8"))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
