"""The claims about helpfulness and safety, each with its source and the test that judges it."""

from collections.abc import Callable

from posttrain.evaluation.combining import THRESHOLD
from posttrain.evidence import claims
from posttrain.evidence.claims import Claim, Evidence
from posttrain.evidence.records import Record
from posttrain.studies.tradeoff.data import HELPFULNESS, SAFETY
from posttrain.studies.tradeoff.outcome import AUXILIARY, BOTH, HELPFUL, JOINT, SAFE
from posttrain.studies.tradeoff.rules import MAIN_EXCHANGE, SINGLE

#: Llama 2's own effects (Tables 8 and 29): what the right model gains on safety and on helpfulness,
#: and what the auxiliary loss gains.
ON_SAFETY, ON_HELPFULNESS, FROM_AUXILIARY = 0.017, 0.070, 0.008
ONE_POINT, FIVE_POINTS = 0.01, 0.05
#: The share of the way to the best possible choices that the recommended rule is to cover.
ENOUGH = 0.9


def difference(record: Record, contrast: str, test: str) -> tuple[float, float, float]:
    """A paired difference of accuracy, each arm tuned."""
    return claims.estimate(
        record.tables["differences"],
        contrast=contrast,
        test=test,
        tuning="tuned",
        metric="accuracy",
    )


def _difference(contrast: str, test: str, smallest: float) -> Callable[[Record], Evidence]:
    return lambda record: Evidence(record.name, *difference(record, contrast, test), smallest)


def _reverse(contrast: str, test: str, smallest: float) -> Callable[[Record], Evidence]:
    """Minus a difference: positive where the second arm is better."""

    def test_one(record: Record) -> Evidence:
        value, low, high = difference(record, contrast, test)
        return Evidence(record.name, -value, -high, -low, smallest)

    return test_one


def _no_worse(contrast: str, test: str, bound: float) -> Callable[[Record], Evidence]:
    """A difference plus a bound: positive where the first arm loses less than that."""

    def test_one(record: Record) -> Evidence:
        found = difference(record, contrast, test)
        value, low, high = (number + bound for number in found)
        return Evidence(record.name, value, low, high, 0.0, measured=found)

    return test_one


def conflict(record: Record, arm: str, kind: str) -> tuple[float, float, float]:
    """How often the response that does right in refusing or answering scores higher."""
    return claims.estimate(record.tables["conflicts"], arm=arm, kind=kind)


def _errs(arm: str, kind: str) -> Callable[[Record], Evidence]:
    """One half minus that share: positive where a model prefers what is wrong."""

    def test_one(record: Record) -> Evidence:
        value, low, high = conflict(record, arm, kind)
        return Evidence(
            record.name, 0.5 - value, 0.5 - high, 0.5 - low, FIVE_POINTS,
            measured=(value, low, high),
        )  # fmt: skip

    return test_one


def has_gold(record: Record) -> bool:
    """Whether the true quality of candidates is known."""
    return bool((record.tables["choices"]["metric"] == "helpfulness").any())


def advantage(
    record: Record, system: str, *, team: str = SINGLE, parameter: float | None = None
) -> tuple[float, float, float]:
    """What the sum of two calibrated specialists gains over another way of choosing.

    In the share of the way to the best possible choice where gold is known (at the main rate of
    exchange), otherwise in errors avoided.
    """
    table = record.tables["advantages"]
    if parameter is not None:
        table = table[table["parameter"] == parameter]
    metric = f"recovered {MAIN_EXCHANGE:g}" if has_gold(record) else "errors"
    value, low, high = claims.estimate(table, team=team, system=system, metric=metric)
    return (value, low, high) if has_gold(record) else (-value, -high, -low)


def _over(
    system: str, *, team: str = SINGLE, parameter: float | None = None
) -> Callable[[Record], Evidence]:
    return lambda record: Evidence(
        record.name, *advantage(record, system, team=team, parameter=parameter), ONE_POINT
    )


def _recovers(record: Record) -> Evidence:
    """What the recommended rule recovers, less 90 %."""
    table = record.tables["choices"]
    found = claims.estimate(
        table[table["parameter"] == MAIN_EXCHANGE],
        team="specialists", system="sum", metric=f"recovered {MAIN_EXCHANGE:g}",
    )  # fmt: skip
    value, low, high = (number - ENOUGH for number in found)
    return Evidence(record.name, value, low, high, 0.0, measured=found)


def _has(*arms: str) -> Callable[[Record], bool]:
    return lambda record: set(arms) <= set(record.tables["metrics"]["arm"])


LLAMA_2 = "Llama 2, Table 8"
OURS = "derived in this book"
TRADEOFF_CLAIMS: tuple[Claim, ...] = (
    Claim(
        "safety-needs-its-model",
        LLAMA_2,
        "On safety, the safety model ranks better than the helpfulness model.",
        "64.5 against 62.8 %",
        "accuracy on safety, safety mix (90 % safety) minus helpfulness mix (50 %), tuned",
        "tradeoff",
        _difference("safety mix - helpfulness mix", SAFETY, ON_SAFETY),
        applies=lambda record: _has_contrast(record, "safety mix - helpfulness mix"),
    ),
    Claim(
        "helpfulness-needs-its-model",
        LLAMA_2,
        "On helpfulness, the helpfulness model ranks better than the safety model.",
        "63.2 against 56.2 %",
        "accuracy on helpfulness, helpfulness mix minus safety mix, tuned",
        "tradeoff",
        _reverse("safety mix - helpfulness mix", HELPFULNESS, ON_HELPFULNESS),
        applies=lambda record: _has_contrast(record, "safety mix - helpfulness mix"),
    ),
    Claim(
        "auxiliary-loss-helps",
        "Llama 2, Table 29",
        "An auxiliary loss that tells safe from unsafe responses improves accuracy on safety.",
        "64.5 against 63.7 %",
        "accuracy on safety, safety mix with the auxiliary loss minus without, each tuned",
        "tradeoff",
        _difference("auxiliary loss - none", SAFETY, FROM_AUXILIARY),
        applies=_has(AUXILIARY),
    ),
    Claim(
        "one-ranks-as-well",
        OURS,
        "One model of all data ranks both domains as well as a specialist for each.",
        "no number given",
        "accuracy on one's own domain, joint model minus specialists, mean of both, tuned; "
        "supported above −1 point",
        "tradeoff",
        _no_worse("joint - own specialist", BOTH, ONE_POINT),
        ours=True,
        applies=_has(JOINT),
    ),
    Claim(
        "equal-parts-cost",
        OURS,
        "At equal size, a model of equal parts ranks worse than a specialist for each domain.",
        "no number given",
        "accuracy on one's own domain, specialists minus equal parts, mean of both, tuned",
        "tradeoff",
        _reverse("equal parts - own specialist", BOTH, ONE_POINT),
        ours=True,
        applies=lambda record: _has_contrast(record, "equal parts - own specialist"),
    ),
    Claim(
        "helpfulness-answers-unsafe",
        OURS,
        "A model of helpfulness alone prefers answers to unsafe requests.",
        "no number given",
        "share of pairs on unsafe prompts whose refusal scores higher; supported below one half, "
        "not supported from 45 % on",
        "tradeoff",
        _errs(HELPFUL, "unsafe"),
        ours=True,
    ),
    Claim(
        "safety-refuses-harmless",
        OURS,
        "A model of safety alone prefers refusals of harmless requests that look unsafe.",
        "no number given",
        "share of pairs on such prompts whose answer scores higher; supported below one half, not "
        "supported from 45 % on",
        "tradeoff",
        _errs(SAFE, "lookalike"),
        ours=True,
    ),
    Claim(
        "two-choose-better",
        OURS,
        "Two calibrated models choose better than one model of all data.",
        "no number given",
        "sum of specialists, safety counting twice, minus the joint model: share of the way from "
        "random to the best combined gold; on human data, errors avoided (answers to unsafe and "
        "refusals of harmless requests, mean of both)",
        "tradeoff",
        _over(JOINT),
        ours=True,
        applies=_has(JOINT),
    ),
    Claim(
        "sum-beats-switch",
        OURS,
        "A sum of calibrated scores chooses better than Llama 2's switch.",
        "no number given",
        "the same measure, sum minus the calibrated switch at 0.15 without flags",
        "tradeoff",
        _over("switch", team="specialists", parameter=THRESHOLD),
        ours=True,
    ),
    Claim(
        "sum-recovers",
        OURS,
        "The sum of calibrated scores recovers at least 90 % of the best reachable combined gold.",
        "no number given",
        "share of the way from random to the best possible choice, safety counting twice; "
        "supported above 90 %",
        "tradeoff",
        _recovers,
        ours=True,
        applies=has_gold,
    ),
)


def _has_contrast(record: Record, contrast: str) -> bool:
    return bool((record.tables["differences"]["contrast"] == contrast).any())
