"""The page "Try a row" tells the truth: what its script computes is what the package computes."""

import json
import re
from pathlib import Path

import pytest
import quickjs
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from posttrain.data.preferences import RESPONSES
from posttrain.rows.attention import dense_mask
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.segments import segments_of
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.studies.common.cost import GroupLengths, tokens, visible_pairs
from posttrain.training.collator import TrainingGroup
from posttrain.training.losses import ranking_loss

PAGE = Path(__file__).parents[2] / "book" / "try_a_row.html"
SCRIPT = re.search("<script>(.*)</script>", PAGE.read_text(encoding="utf-8"), re.DOTALL)[1]
#: The page's layouts, each with the order shuffled, as one that is ranked is a special case.
SHUFFLED = {
    "separate": LAYOUTS["separate"],
    "exact": Layout("single", "isolated", "restarting", "shuffled"),
    "running": Layout("single", "isolated", "running", "shuffled"),
    "causal": LAYOUTS["causal"],
}
LENGTHS = st.tuples(st.integers(1, 7), st.lists(st.integers(1, 7), min_size=2, max_size=4))


@pytest.fixture(scope="module")
def page():
    """Calls a function of the page with values that JSON can say."""
    context = quickjs.Context()
    context.eval(SCRIPT)

    def call(name, *arguments):
        given_ = ", ".join(json.dumps(argument) for argument in arguments)
        return json.loads(context.eval(f"JSON.stringify(Row.{name}({given_}))"))

    return call


def made(lengths, layout, seed):
    """A group of such lengths, the package's batch of it, and the order of its responses there."""
    prompt, responses = lengths
    ids = iter(range(100))
    group = TokenizedGroup(
        tuple(next(ids) for _ in range(prompt)),
        tuple(tuple(next(ids) for _ in range(length)) for length in responses),
    )
    batch = lay_out([group], SHUFFLED[layout], pad_token_id=0, seeds=[(seed,)])
    return group, batch, batch.score_index.argsort().tolist()


def for_page(group):
    return {"prompt": group.prompt, "responses": group.responses}


def structure(batch):
    """Masks ``[rows, longest, longest]`` and positions ``[rows, longest]``, of plain rows too."""
    rows, longest = batch.input_ids.shape
    if batch.document_id is not None:
        return dense_mask(batch)[:, 0], batch.position_ids
    mask = torch.ones(longest, longest).tril().bool().expand(rows, -1, -1)
    return mask, torch.arange(longest).expand(rows, -1)


cases = given(LENGTHS, st.sampled_from(sorted(SHUFFLED)), st.integers(0, 99))


@settings(deadline=None)
@cases
def test_rows_are_those_of_the_package(page, lengths, layout, seed):
    group, batch, order = made(lengths, layout, seed)
    rows = page("layOut", for_page(group), layout, order)
    masks, positions = structure(batch)
    longest = batch.input_ids.shape[1]
    assert len(rows) == len(batch.input_ids)
    scored = {}
    for number, row in enumerate(rows):
        size = len(row["tokens"])
        assert row["tokens"] == batch.input_ids[number, :size].tolist()
        assert row["position"] == positions[number, :size].tolist()
        assert row["mask"] == masks[number, :size, :size].tolist()
        scored |= {one["response"]: number * longest + one["index"] for one in row["scores"]}
    assert [scored[k] for k in range(len(scored))] == batch.score_index.tolist()


@settings(deadline=None)
@cases
def test_what_the_picture_colours(page, lengths, layout, seed):
    group, _, order = made(lengths, layout, seed)
    for row in page("layOut", for_page(group), layout, order):
        parts = [
            0 if token in group.prompt else row["part"][k] for k, token in enumerate(row["tokens"])
        ]
        assert parts == row["part"]
        last = len(parts) - 1
        kinds = [page("kind", row, last, key) for key in range(len(parts))]
        names = {0: "prompt", parts[last]: "own"}
        other = "other" if layout == "causal" else ""
        assert kinds == [names.get(part, other) for part in parts]


@settings(deadline=None)
@cases
def test_a_row_is_called_equal_exactly_where_the_package_says_so(page, lengths, layout, seed):
    group, _, order = made(lengths, layout, seed)
    rows = page("layOut", for_page(group), layout, order)
    alone = page("readAsAlone", for_page(group), rows)
    exact = SHUFFLED[layout].is_exact
    assert alone == [exact or k == order[0] for k in range(len(order))]
    assert page("verdictOf", for_page(group), rows, layout, order).startswith("No") != exact


@settings(deadline=None)
@cases
def test_counts_are_those_of_the_package(page, lengths, layout, seed):
    group, batch, order = made(lengths, layout, seed)
    rows = page("layOut", for_page(group), layout, order)
    sizes = GroupLengths(lengths[0], tuple(lengths[1]))
    arrangement = {"separate": "separate rows", "causal": "causal row"}.get(layout, "exact row")
    counts = page("countsOf", for_page(group), rows, layout)
    pieces = counts.pop("pieces")
    assert counts == {
        "tokens": SHUFFLED[layout].tokens(group),
        "separate": LAYOUTS["separate"].tokens(group),
        "pairs": tokens(sizes, "pair rows"),
        "dense": sum(len(row["tokens"]) ** 2 for row in rows),
        "seen": visible_pairs(sizes, arrangement),
    }
    if arrangement != "exact row":
        assert pieces is None
        return
    found = segments_of(batch.document_id, batch.segment_id)
    assert pieces == (found.length * (found.prompt_length + found.length)).sum()


@settings(deadline=None)
@cases
def test_the_printed_code_makes_these_masks_and_positions(page, lengths, layout, seed):
    group, batch, order = made(lengths, layout, seed)
    code = page("torchCode", for_page(group), layout, order)
    assert len([line for line in code.splitlines() if line]) <= 11
    names = {}
    exec(code, names)
    masks, positions = structure(batch)
    single = [(names.get("mask"), names.get("position"), names.get("score_at"))]
    for number, (mask, position, score_at) in enumerate(names.get("rows", single)):
        size = len(position)
        assert torch.equal(mask, masks[number, :size, :size])
        assert torch.equal(position, positions[number, :size])
        first = number * batch.input_ids.shape[1]
        ranked = batch.score_index[[number] if layout == "separate" else order]
        assert (torch.as_tensor(score_at) + first == ranked).all()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_loss_is_the_mean_over_all_pairs(page, count):
    group = TokenizedGroup((0,), tuple((k,) for k in range(1, count + 1)))
    pairs = [(pair.winner, pair.loser) for pair in TrainingGroup.with_all_pairs(group).pairs]
    assert page("pairsOf", count) == [list(pair) for pair in pairs]
    r = torch.tensor([0.3, -1.2, 2.0, 0.7], dtype=torch.float64)
    winners, losers = (r[list(ends)] for ends in zip(*pairs, strict=True))
    formula = page("lossOf", count)
    for shown, meant in {"log σ": "log", "⅓ ": "1/3*", "⅙ ": "1/6*", "−": "-"}.items():
        formula = formula.replace(shown, meant)
    formula = re.sub("r([₁₂₃₄])", lambda found: f"r[{'₁₂₃₄'.index(found[1])}]", formula)
    value = eval(formula.replace("[log", "(log").replace(")]", "))"), {"r": r, "log": logsigmoid})
    torch.testing.assert_close(value, ranking_loss(winners, losers))
    if count < 4:
        assert page("names", count) == list(RESPONSES[-count:])


def test_what_is_typed_becomes_words_and_an_end(page):
    group = page("groupOf", " Name a\nprime ", ["Two", " the  number 4 "])
    assert group == {
        "prompt": ["Name", "a", "prime"],
        "responses": [["Two", "<end>"], ["the", "number", "4", "<end>"]],
    }
    assert page("problemWith", group) == ""


@pytest.mark.parametrize(
    ("prompt", "responses", "found"),
    [
        (" ", ["a", "b"], "prompt"),
        ("x", ["a", " "], "response 2"),
        ("x", ["a b", "c", "a  b"], "Response 3 repeats"),
        ("x " * 30, ["a " * 20, "b " * 20], "64 tokens"),
    ],
)
def test_what_makes_no_row_is_said(page, prompt, responses, found):
    assert found in page("problemWith", page("groupOf", prompt, responses))
