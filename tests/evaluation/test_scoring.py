"""Scores of many groups: those of the model, in order, and never all groups at a time."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.sources.simulator.annotators import simulate
from posttrain.evaluation import scoring
from posttrain.evaluation.scoring import Scorer, limits_for, score_groups, score_with
from posttrain.models import reward_model
from posttrain.models.reward_model import score, score_head
from posttrain.rows.layout import LAYOUTS, Layout
from posttrain.rows.tokenization import (
    Limits,
    TokenizedGroup,
    TooLongError,
    UnreadableError,
    tokenize_group,
)

SEPARATE, EXACT = LAYOUTS["separate"], LAYOUTS["exact"]
CAUSAL = Layout("single", "causal", "running")
NAMES = {2: ["chosen", "rejected"], 3: ["edited", "chosen", "rejected"]}
NONE = Limits()


@pytest.fixture(scope="module")
def groups():
    found = [group.ranked for group in simulate(24, seed=5, edited_share=0.5)]
    assert {len(group.responses) for group in found} == {2, 3}
    return found


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    """A reward model and its tokenizer, which no test changes."""
    return reward_model.load(tiny_checkpoint)


def scores_of(found):
    return [score for one in found for score in one.scores.values()]


def tokenized(tokenizer, groups, *limits):
    return [tokenize_group(tokenizer, group, Limits(*limits), keep_equal=True) for group in groups]


@pytest.mark.parametrize("pack_length", [None, 130])
@pytest.mark.parametrize("layout", [SEPARATE, EXACT, CAUSAL], ids=["separate", "exact", "causal"])
def test_scores_are_those_of_the_model_group_by_group(loaded, groups, layout, pack_length):
    model, tokenizer = loaded
    expected = [
        score(model, [tokens], pad_token_id=0, layout=layout).tolist()
        for tokens in tokenized(tokenizer, groups)
    ]
    for batch_tokens in (1, 300, 8192):
        found = list(
            score_groups(
                model,
                tokenizer,
                groups,
                layout,
                NONE,
                batch_tokens=batch_tokens,
                pack_length=pack_length,
            )
        )
        assert [one.group for one in found] == groups
        for one, values in zip(found, expected, strict=True):
            assert list(one.scores) == NAMES[len(one.group.responses)]
            assert list(one.scores.values()) == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("layout", [SEPARATE, EXACT], ids=["separate", "exact"])
def test_a_response_that_records_repeat_is_computed_once(loaded, groups, layout, monkeypatch):
    model, tokenizer = loaded
    turned = [replace(g, id=f"{g.id}'", responses=g.responses[::-1]) for g in groups]
    computed = []
    real = reward_model.forward_scores

    def watched(model, batch):
        computed.append(len(batch.score_index))
        return real(model, batch)

    monkeypatch.setattr(reward_model, "forward_scores", watched)
    found = list(score_groups(model, tokenizer, [*groups, *turned], layout, NONE))
    assert sum(computed) == sum(len(group.responses) for group in groups)
    for one, other in zip(found[: len(groups)], found[len(groups) :], strict=True):
        assert list(one.scores.values()) == list(other.scores.values())[::-1]


def test_scores_of_shuffled_rows_are_those_of_the_model_for_the_same_seed(loaded, groups):
    model, tokenizer = loaded
    torch.manual_seed(3)
    expected = score(
        model, tokenized(tokenizer, groups), pad_token_id=0, layout=LAYOUTS["causal"]
    ).tolist()
    torch.manual_seed(3)
    found = list(score_groups(model, tokenizer, groups, LAYOUTS["causal"], NONE))
    assert [one.group for one in found] == groups
    assert scores_of(found) == pytest.approx(expected, abs=1e-12)
    again = list(score_groups(model, tokenizer, groups, LAYOUTS["causal"], NONE))
    assert scores_of(again) != pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("chunk", [1, 5, 24, 100])
def test_scores_do_not_depend_on_how_many_groups_are_in_memory(monkeypatch, loaded, groups, chunk):
    expected = list(score_groups(*loaded, groups, EXACT, NONE))
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    found = list(score_groups(*loaded, iter(groups), EXACT, NONE))
    assert [one.group for one in found] == groups
    for one, wanted in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(wanted.scores, abs=1e-12)


def test_groups_are_drawn_as_they_are_needed(monkeypatch, loaded, groups):
    monkeypatch.setattr(scoring, "CHUNK", 4)
    drawn = []

    def source():
        for group in groups:
            drawn.append(group)
            yield group

    found = score_groups(*loaded, source(), EXACT, NONE)
    assert drawn == []
    for number in range(1, 13):
        assert next(found).group == groups[number - 1]
        assert len(drawn) == 4 * -(-number // 4)


def test_no_groups_have_no_scores(loaded):
    assert list(score_groups(*loaded, [], EXACT, NONE)) == []


def group_with(*responses, prompt="Why?"):
    return RankedGroup("equal", (Message("user", prompt),), responses)


@pytest.mark.parametrize("layout", [SEPARATE, EXACT], ids=["separate", "exact"])
def test_responses_that_are_equal_in_tokens_have_equal_scores(loaded, layout):
    # Words that the tokenizer does not know are one and the same token.
    groups = [group_with("qq", "ww"), group_with("qq", "sure", "ww"), group_with("sure", "sorry")]
    equal, edited, other = list(score_groups(*loaded, groups, layout, NONE))
    assert equal.scores["chosen"] == pytest.approx(equal.scores["rejected"], abs=1e-12)
    assert list(edited.scores) == NAMES[3]
    assert edited.scores["edited"] == pytest.approx(edited.scores["rejected"], abs=1e-12)
    assert abs(edited.scores["edited"] - edited.scores["chosen"]) > 1e-6
    assert abs(other.scores["chosen"] - other.scores["rejected"]) > 1e-6


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_groups_that_are_too_long_are_errors_or_counted(monkeypatch, loaded, groups, chunk):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    model, tokenizer = loaded
    whole = tokenized(tokenizer, groups)
    needed = [max(map(len, tokens.responses)) for tokens in whole]
    limit = sorted(needed)[-3]
    kept = [place for place, size in enumerate(needed) if size < limit]
    cut = sum(len(whole[place].prompt) + needed[place] > limit for place in kept)
    assert 3 < cut < len(kept) < len(groups)
    counts = Counter(before=1)
    found = list(
        score_groups(*loaded, groups, EXACT, Limits(limit, skip_too_long=True), counts=counts)
    )
    assert [one.group for one in found] == [groups[place] for place in kept]
    assert counts == {
        "before": 1,
        "groups that are too long": len(groups) - len(kept),
        "trimmed prompts": cut,
    }
    # As if each response were alone, because none is cut for the sake of another.
    for one, place in zip(found, kept, strict=True):
        tokens = whole[place]
        rows = [(tokens.prompt + response)[-limit:] for response in tokens.responses]
        alone = [TokenizedGroup(row[:-1], (row[-1:],)) for row in rows]
        values = score(model, alone, pad_token_id=0).tolist()
        assert list(one.scores.values()) == pytest.approx(values, abs=1e-12)
        longer = [max(0, len(tokens.prompt + response) - limit) for response in tokens.responses]
        assert list(one.trimmed.values()) == longer
    with pytest.raises(TooLongError, match=rf"of {limit} \(max_tokens\)"):
        list(score_groups(*loaded, groups, EXACT, Limits(limit)))


def test_a_chunk_of_nothing_but_groups_that_are_too_long_is_passed_over(monkeypatch, loaded):
    monkeypatch.setattr(scoring, "CHUNK", 2)
    long = group_with("sure " * 50, "sorry")
    groups = [long, long, group_with("sure", "sorry"), long, long, long]
    counts = Counter()
    limits = Limits(max_tokens=20, skip_too_long=True)
    found = list(score_groups(*loaded, groups, EXACT, limits, counts=counts))
    assert [one.group for one in found] == [groups[2]]
    assert counts["groups that are too long"] == 5


@pytest.fixture(scope="module")
def other(tiny_checkpoint):
    """Another reward model, whose tokenizer needs more tokens for a response."""
    model, tokenizer = reward_model.load(tiny_checkpoint, seed=1)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "sure <|end|>")
    return model, tokenizer


@pytest.mark.parametrize("chunk", [1, 5, 100])
@pytest.mark.parametrize("layout", [SEPARATE, EXACT], ids=["separate", "exact"])
def test_two_models_score_the_same_groups(monkeypatch, loaded, other, groups, layout, chunk):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    expected = [list(score_groups(*one, groups, layout, NONE)) for one in (loaded, other)]
    scorers = [Scorer(*one, layout, NONE) for one in (loaded, other)]
    drawn = []

    def source():
        for group in groups:
            drawn.append(group)
            yield group

    for number, (group, _, scores) in enumerate(score_with(scorers, source())):
        assert group == groups[number]
        assert len(drawn) <= chunk * (number // chunk + 1)
        for found, wanted in zip(scores, expected, strict=True):
            assert found == pytest.approx(wanted[number].scores, abs=1e-12)
    assert drawn == groups
    assert scores_of(expected[0]) != pytest.approx(scores_of(expected[1]), abs=1e-3)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_a_group_too_long_for_one_of_two_models_is_left_out_and_counted_once(
    monkeypatch, loaded, other, groups, chunk
):
    monkeypatch.setattr(scoring, "CHUNK", chunk)
    needed = [
        [max(map(len, tokens.responses)) for tokens in tokenized(tokenizer, groups)]
        for _, tokenizer in (loaded, other)
    ]
    limit = sorted(needed[0])[len(groups) // 2] + 1
    takes = [[size < limit for size in sizes] for sizes in needed]
    assert sum(takes[0]) > sum(takes[1]) > 3
    kept = [group for group, taken in zip(groups, takes[1], strict=True) if taken]
    limits = Limits(limit, skip_too_long=True)
    for first, second in ((loaded, other), (other, loaded)):
        scorers = [Scorer(*one, EXACT, limits) for one in (first, second)]
        counts = Counter()
        found = list(score_with(scorers, groups, counts=counts))
        assert [group for group, *_ in found] == kept
        assert counts["groups that are too long"] == len(groups) - len(kept)
        assert counts["trimmed prompts"] <= len(kept)
        for number, one in enumerate((first, second)):
            alone = score_groups(*one, kept, EXACT, limits)
            for (*_, scores), wanted in zip(found, alone, strict=True):
                assert scores[number] == pytest.approx(wanted.scores, abs=1e-12)


def test_prompts_that_two_models_trim_are_counted_once(loaded, other, groups):
    # Just enough for the responses: every prompt is cut for the model that needs more tokens.
    whole = tokenized(loaded[1], groups[:1])[0]
    limit = max(map(len, whole.responses)) + 3
    assert len(whole.prompt) > 3
    counts = Counter()
    scorers = [Scorer(*one, EXACT, Limits(limit)) for one in (loaded, other)]
    assert len(list(score_with(scorers, groups[:1], counts=counts))) == 1
    assert counts == {"trimmed prompts": 1}
    counts = Counter()
    scorers = [Scorer(*loaded, EXACT, NONE), Scorer(*other, EXACT, Limits(limit))]
    assert len(list(score_with(scorers, groups[:1], counts=counts))) == 1
    assert counts == {"trimmed prompts": 1}


# The tiny model's context is 256 tokens.
@pytest.mark.parametrize(
    ("layout", "options", "expected"),
    [
        (SEPARATE, {}, Limits(256)),
        (SEPARATE, {"max_tokens": 100}, Limits(100)),
        (SEPARATE, {"max_tokens": 1000}, Limits(256)),
        (SEPARATE, {"pack_length": 120}, Limits(120)),
        (SEPARATE, {"pack_length": 1000}, Limits(256)),
        (SEPARATE, {"max_tokens": 100, "pack_length": 120}, Limits(100)),
        (SEPARATE, {"max_tokens": 120, "pack_length": 100}, Limits(100)),
        # Positions restart, so a row may be longer than the context.
        (EXACT, {}, Limits(256, None)),
        (EXACT, {"max_tokens": 100}, Limits(100, None)),
        (EXACT, {"max_tokens": 1000, "pack_length": 4096}, Limits(256, 4096)),
        (EXACT, {"pack_length": 120}, Limits(256, 120)),
        (LAYOUTS["causal"], {}, Limits(256, 256)),
        (LAYOUTS["causal"], {"max_tokens": 100}, Limits(100, 256)),
        (LAYOUTS["causal"], {"pack_length": 4096}, Limits(256, 256)),
        (LAYOUTS["causal"], {"pack_length": 120}, Limits(256, 120)),
        (Layout("single", "isolated", "running"), {}, Limits(256, 256)),
        (Layout("single", "causal", "restarting"), {}, Limits(256, None)),
        (EXACT, {"skip_too_long": True}, Limits(256, None, True)),
        (SEPARATE, {"skip_too_long": True}, Limits(256, None, True)),
    ],
)
def test_limits_by_hand(loaded, layout, options, expected):
    model, _ = loaded
    assert model.config.max_position_embeddings == 256
    found = limits_for(model, layout, **options)
    expected = replace(expected, context=256, vocabulary=model.config.vocab_size, skipped_end=0)
    assert found == expected


@pytest.mark.parametrize("pack_length", [None, 100])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_groups_within_their_limits_are_scored_in_any_layout(loaded, groups, layout, pack_length):
    # Without limits a row would be refused, or exceed the context.
    model, _ = loaded
    words = " ".join(["sure"] * 300)
    long = [group_with("sure", "sorry", "sure sorry", prompt=words), *groups]
    limits = limits_for(model, layout, pack_length=pack_length, skip_too_long=True)
    counts = Counter()
    found = list(
        score_groups(*loaded, long, layout, limits, pack_length=pack_length, counts=counts)
    )
    assert counts == {"trimmed prompts": 1}
    assert len(found) == len(long)
    assert all(map(math.isfinite, scores_of(found)))
    if pack_length is not None:
        with pytest.raises(ValueError, match="more than pack_length=100"):
            list(score_groups(*loaded, long, layout, NONE, pack_length=pack_length))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused_with_the_record(tiny_model, groups, value):
    model, tokenizer = tiny_model
    score_head(model).weight.data[:] = value
    limits = limits_for(model, LAYOUTS["separate"])
    with pytest.raises(ValueError, match=rf"of record {groups[0].id!r} as (nan|-?inf)") as refused:
        list(score_groups(model, tokenizer, groups, LAYOUTS["separate"], limits))
    assert "take an earlier checkpoint" in str(refused.value)


@pytest.mark.parametrize("pack_length", [None, 120])
@pytest.mark.parametrize("layout", [SEPARATE, EXACT], ids=["separate", "exact"])
def test_a_score_depends_on_nothing_beside_its_prompt_and_response(loaded, layout, pack_length):
    model, tokenizer = loaded
    # Of all lengths, also such that need cutting; some responses leave little room for the prompt.
    others = [
        group_with(
            *(
                " ".join(["sure"] * (1 + (7 * number * place) % 90)) + f" {place}"
                for place in (1, 2)
            ),
            prompt=" ".join(["why"] * (1 + 13 * number % 250)),
        )
        for number in range(200)
    ]
    limits = limits_for(model, layout, max_tokens=100, pack_length=pack_length)
    options = {"pack_length": pack_length}
    beside = {
        batch_tokens: list(
            score_groups(*loaded, others, layout, limits, batch_tokens=batch_tokens, **options)
        )
        for batch_tokens in (300, 100_000)
    }
    some = range(0, 200, 9)
    assert len({tuple(beside[300][place].trimmed.values()) for place in some}) > 10
    for place in some:
        for name, text in zip(("chosen", "rejected"), others[place].responses, strict=True):
            turns = [{"role": "user", "content": others[place].prompt[0].content},
                     {"role": "assistant", "content": text}]  # fmt: skip
            whole = tokenizer.apply_chat_template(turns, tokenize=False)
            ids = tuple(tokenizer(whole, add_special_tokens=False)["input_ids"])
            alone = TokenizedGroup(ids[-100:-1], (ids[-1:],))
            expected = score(model, [alone], pad_token_id=0).item()
            for found in beside.values():
                assert found[place].scores[name] == pytest.approx(expected, abs=1e-5)
                assert found[place].trimmed[name] == max(0, len(ids) - 100)


def test_records_that_a_template_refuses_are_errors_or_counted(loaded, tiny_checkpoint):
    model, _ = loaded
    tokenizer = reward_model.load(tiny_checkpoint)[1]
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + tokenizer.chat_template
    )
    plain, system = group_with("sure", "sorry"), group_with("sure", "sorry")
    system = replace(system, id="s", prompt=(Message("system", "Be brief."), *system.prompt))
    with pytest.raises(UnreadableError, match=r"record 's': .*no system role.*--skip_bad"):
        list(score_groups(model, tokenizer, [plain, system], EXACT, NONE))
    counts = Counter()
    limits = Limits(skip_unreadable=True)
    found = list(score_groups(model, tokenizer, [plain, system], EXACT, limits, counts=counts))
    assert [one.group.id for one in found] == ["equal"]
    assert +counts == {"records that the model cannot read": 1}
