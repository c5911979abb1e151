r"""What a score means: calibration of a reward model on held-out pairs.

The ranking loss sees differences of scores only, so adding a constant to all of them changes
nothing, and neither scale nor zero of a trained model is anything that a threshold could refer to.
A calibration gives both a meaning (:math:`r` is the model's score):

.. math:: s = a\,(r - c)

- *Scale.* :math:`a` maximises the likelihood of held-out pairs under Bradley–Terry, so a difference
  of calibrated scores is the log odds with which annotators prefer one response to the other:
  :math:`P(y_1 \succ y_2) = σ(s_1 - s_2)`. This is temperature scaling
  (:cite:p:`Guo et al. 2017 <guo2017calibration>`) of pairs.
- *Zero.* :math:`c` is the mean score of the held-out responses. So :math:`σ(s)` is the probability
  with which annotators would prefer the response to one of average score.

Calibrated scores of two models have one unit, so they can be compared, added and thresholded.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from posttrain.errors import UserError
from posttrain.models.reward_model import score_head
from posttrain.rows.rendering import tokenizer_hash
from posttrain.storage.files import whole_file

#: Where a calibration stands beside the model that it belongs to.
FILE = "calibration.json"
#: Why some uses of scores are refused without one.
WHY = (
    "Only differences of a reward model's scores mean anything before calibration, so a threshold, "
    "or a sum with another model's score, would depend on the accidents of training"
)
REMEDY = "fit one on held-out pairs: posttrain calibrate --model MODEL --data FILE"


@dataclass(frozen=True)
class Calibration:
    """Scale and zero of a model's scores.

    Attributes:
        scale: a, positive, in nats of log odds per unit of score.
        centre: c, in units of score.
        pairs: Number of held-out pairs it was fitted on.
        data: Names of the sources they came from.
        head: Which model it belongs to (see :func:`head_hash`).
        tokenizer: How it reads (see :func:`.tokenizer_hash`); empty in files of an earlier version.
    """

    scale: float
    centre: float
    pairs: int
    data: tuple[str, ...] = ()
    head: str = ""
    tokenizer: str = ""

    def apply(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated scores, in nats, of the shape of ``scores``."""
        return self.scale * (np.asarray(scores, dtype=float) - self.centre)

    def save(self, path: Path) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        with whole_file(path) as file:
            file.write(json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")


def fit(
    winners: np.ndarray,
    losers: np.ndarray,
    *,
    data: Sequence[str] = (),
    head: str = "",
    tokenizer: str = "",
) -> Calibration:
    """Fit scale and zero on the scores of held-out pairs, two arrays of shape ``[pairs]``.

    Three of four pairs are ranked right, by 2 each, so 2 is to become log 3:

    >>> found = fit(np.array([3, 3, 3, 1]), np.array([1, 1, 1, 3]))
    >>> round(2 * found.scale, 4), found.centre
    (1.0986, 2.0)

    Raises:
        UserError: If a score is not finite, or no finite positive scale is the most likely one: all
            pairs are ranked right, or scores and preferences do not agree.
    """
    winners, losers = np.asarray(winners, dtype=float), np.asarray(losers, dtype=float)
    if winners.ndim != 1 or winners.shape != losers.shape or not len(winners):
        raise UserError(
            f"expected scores of one shape [pairs] with at least one pair, got "
            f"{list(winners.shape)} and {list(losers.shape)}"
        )
    with np.errstate(invalid="ignore"):
        difference = winners - losers
    if not np.isfinite(difference).all():
        raise UserError("scores must be finite; a model that gave NaN or infinity has diverged")
    # In units of the largest, so that neither squares nor the search below depend on their size.
    unit = float(np.abs(difference).max())
    scaled = difference / (unit or 1.0)
    # The slope of the log-likelihood in a falls all along, from half the mean difference at a = 0
    # to that of the pairs ranked wrong; it has a zero at a positive a only between the two.
    if scaled.mean() <= 0:
        raise UserError(
            f"on {len(difference)} held-out pairs the preferred response scores no higher on "
            "average, so no scale makes these scores agree with the preferences; check that model "
            "and data belong together"
        )
    if scaled.min() >= 0:
        raise UserError(
            f"none of {len(difference)} held-out pairs is ranked wrong, so the most likely scale "
            "is infinite; use more pairs, which the model has not been trained on"
        )

    def slope(log_scale: float) -> float:
        return float((scaled * expit(-math.exp(log_scale) * scaled)).mean())

    low, high = -1.0, 1.0
    while slope(low) < 0:
        low -= 2
    while slope(high) > 0:
        high += 2
    scale = math.exp(float(brentq(slope, low, high, xtol=1e-12))) / unit
    centre = float((winners.mean() + losers.mean()) / 2)
    return Calibration(scale, centre, len(difference), tuple(data), head, tokenizer)


def log_likelihood(difference: np.ndarray) -> float:
    """Mean log σ(Δ) in nats a pair: how likely the preferences are under Bradley–Terry.

    Δ is the score of the preferred response minus that of the other, ``[pairs]``.
    """
    return float(-np.logaddexp(0, -np.asarray(difference, dtype=float)).mean())


def head_hash(model: PreTrainedModel) -> str:
    """16 hexadecimal digits that change with the score head, so with each training.

    They are those of the head in bfloat16, whatever precision the model was loaded in.
    """
    weight = score_head(model).weight.detach().bfloat16().float().cpu().contiguous()
    return hashlib.sha256(weight.numpy().tobytes()).hexdigest()[:16]


def read(path: Path) -> Calibration:
    """Read a calibration; where there is none, the ``UserError`` says how to make one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = Calibration(**content | {"data": tuple(content["data"])})
        if not (math.isfinite(found.scale) and math.isfinite(found.centre) and found.scale > 0):
            raise UserError("scale and centre must be finite, and scale positive")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no calibration. {WHY}; {REMEDY}") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UserError(f"{path}: not a calibration ({reason}); {REMEDY}") from None
    return found


def load(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Calibration:
    """Read a calibration and refuse one of another model, tokenizer or chat template."""
    found = read(path)
    if found.tokenizer and found.tokenizer != tokenizer_hash(tokenizer):
        raise UserError(
            f"{path} was fitted with another tokenizer or chat template, so it says nothing of "
            f"these scores; {REMEDY}"
        )
    if found.head != head_hash(model):
        raise UserError(
            f"{path} was fitted for a model with another score head, so it says nothing of this "
            f"one's scores; {REMEDY}"
        )
    return found
