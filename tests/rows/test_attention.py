"""Masks against their definition, and scores and gradients of exact rows against separate ones."""

import itertools
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from small_llama import SMALL, WORDS
from torch.nn.attention.flex_attention import BlockMask, create_mask
from transformers import (
    Gemma2Config,
    Gemma2ForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPTNeoConfig,
    GPTNeoForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    Qwen2Config,
    Qwen2ForSequenceClassification,
)

from posttrain.models import reward_model
from posttrain.models.float64 import compute_in_double
from posttrain.models.reward_model import forward_scores, score, score_head
from posttrain.rows import attention
from posttrain.rows.attention import (
    block_mask,
    dense_mask,
    mask_arguments,
    mask_for,
    share_prefixes,
)
from posttrain.rows.layout import LAYOUTS, Layout, lay_out
from posttrain.rows.packing import pack_sequences
from posttrain.rows.tokenization import TokenizedGroup
from posttrain.training.losses import ranking_loss

EXACT, SEPARATE = LAYOUTS["exact"], LAYOUTS["separate"]
CAUSAL = Layout("single", "causal", "running")
SINGLE = [
    Layout("single", *choices)
    for choices in itertools.product(
        ("isolated", "causal"), ("restarting", "running"), ("shuffled", "ranked")
    )
]
IDS = st.lists(st.integers(0, WORDS - 1), min_size=1, max_size=9).map(tuple)
GROUPS = st.lists(
    st.builds(TokenizedGroup, IDS, st.lists(IDS, min_size=1, max_size=4).map(tuple)),
    min_size=1,
    max_size=4,
)
LENGTHS = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)
# How far rounding alone moves scores, at most, relative to their root mean square: some five times
# what was measured.
ROUNDING = {
    ("trained", torch.float32): 5e-6,
    ("trained", torch.bfloat16): 0.08,
    ("grouped", torch.float32): 2e-5,
    ("grouped", torch.bfloat16): 0.15,
}
PAIR = TokenizedGroup((5, 6), ((7,), (8, 9)))
DRAWN = [PAIR, TokenizedGroup((1,), ((2,),)), TokenizedGroup((1, 2), ((3, 4), (5,), (6, 7, 8)))]


@pytest.fixture(
    scope="module",
    params=[("trained", "shared_prefix"), ("grouped", "shared_prefix"), ("grouped", "sdpa")],
    ids="-".join,
)
def model(request, load):
    """A model in float64 that no test changes."""
    name, implementation = request.param
    model = load(name)
    model.set_attn_implementation(implementation)
    return model


@pytest.fixture
def own_model(load):
    """A model in float64 that a test may change."""
    return load("grouped")


def random_groups(lengths, seed):
    """Groups of given lengths (of a prompt, and of its responses) with random tokens."""
    generator = torch.Generator().manual_seed(seed)

    def ids(size):
        return tuple(torch.randint(1, WORDS, (size,), generator=generator).tolist())

    return [TokenizedGroup(ids(first), tuple(map(ids, others))) for first, others in lengths]


def many_groups(count, seed, longest=20):
    """Groups of 1 to 4 responses."""
    generator = torch.Generator().manual_seed(seed)

    def sizes(count):
        return torch.randint(1, longest + 1, (count,), generator=generator).tolist()

    lengths = [(sizes(1)[0], sizes(1 + k % 4)) for k in range(count)]
    return random_groups(lengths, seed)


def draw_pack_length(data, groups, layout=EXACT):
    """No limit, or one that the largest document keeps."""
    largest = max(g.longest if layout.rows == "separate" else g.total for g in groups)
    return data.draw(st.none() | st.integers(largest, largest + 40))


@torch.no_grad()
def alone(model, groups):
    """Scores of responses, each in a call of its own, without anything of what is tested here."""
    states = [
        model.base_model(input_ids=torch.tensor([group.prompt + response])).last_hidden_state[0, -1]
        for group in groups
        for response in group.responses
    ]
    return score_head(model)(torch.stack(states).to(score_head(model).weight.dtype)).squeeze(-1)


def parts_of_rows(groups, layout, pack_length=None):
    """For each token of each row its document, and its part: a response's number, or the prompt."""
    documents = []
    for group in groups:
        together = (
            [[response] for response in group.responses]
            if layout.rows == "separate"
            else [group.responses]
        )
        for responses in together:
            parts = ["prompt"] * len(group.prompt)
            for number, response in enumerate(responses):
                parts += [number] * len(response)
            documents.append(parts)
    filled = (
        [[k] for k in range(len(documents))]
        if pack_length is None
        else pack_sequences([len(document) for document in documents], pack_length)
    )
    return [[(k, part) for k in row for part in documents[k]] for row in filled]


def may_see(row, query, key, attention):
    """The definition: who sees whom in a row of documents and parts."""
    if key > query:
        return False
    if query >= len(row) or key >= len(row):
        return query >= len(row) and key >= len(row)
    (document, part), (other_document, other_part) = row[query], row[key]
    if document != other_document:
        return False
    return attention == "causal" or other_part in ("prompt", part)


def relative(difference, scores):
    return (difference.abs().max() / scores.square().mean().sqrt()).item()


class TestMasks:
    def test_by_hand(self):
        batch = lay_out(DRAWN, EXACT, pad_token_id=0, pack_length=8)
        # The first row: two tokens of a prompt, responses of one and two tokens; a prompt and a
        # response of one token each; one token of padding.
        drawn = (
            [
                "#.......",
                "##......",
                "###.....",
                "##.#....",
                "##.##...",
                ".....#..",
                ".....##.",
                ".......#",
            ],
            [
                "#.......",
                "##......",
                "###.....",
                "####....",
                "##..#...",
                "##...#..",
                "##...##.",
                "##...###",
            ],
        )
        assert dense_mask(batch).tolist() == [
            [[[cell == "#" for cell in line] for line in row]] for row in drawn
        ]

    @settings(deadline=None)
    @given(st.data(), GROUPS, st.sampled_from([SEPARATE, EXACT, CAUSAL]))
    def test_dense_and_block_mask_are_the_definition(self, data, groups, layout):
        pack_length = draw_pack_length(data, groups, layout)
        batch = lay_out(groups, layout, pad_token_id=0, pack_length=pack_length)
        if batch.document_id is None:
            return
        count, longest = batch.input_ids.shape
        attention = "isolated" if layout.rows == "separate" else layout.attention
        rows = parts_of_rows(groups, layout, pack_length)
        assert [len(row) for row in rows] == (batch.document_id >= 0).sum(dim=1).tolist()
        slow = [
            [
                [may_see(row, query, key, attention) for key in range(longest)]
                for query in range(longest)
            ]
            for row in rows
        ]
        expected = torch.tensor(slow)[:, None]
        assert torch.equal(dense_mask(batch), expected)
        rule = block_mask(batch).mask_mod
        assert torch.equal(create_mask(rule, count, None, longest, longest, "cpu"), expected)

    def test_the_block_mask_skips_the_tiles_that_see_nothing(self):
        lengths = [(150, [140, 130]), (90, [1, 250, 40]), (20, [30])]
        groups = random_groups(lengths, seed=0)
        batch = lay_out(groups, EXACT, pad_token_id=0, pack_length=512)
        dense, longest = dense_mask(batch), batch.input_ids.shape[1]
        tiles = -(-longest // 128)
        assert tiles == 4
        padded = torch.zeros(len(dense), 1, 128 * tiles, 128 * tiles, dtype=torch.bool)
        padded[:, :, :longest, :longest] = dense
        seen = padded.unflatten(2, (tiles, 128)).unflatten(4, (tiles, 128)).any(5).any(3)
        assert torch.equal(block_mask(batch).to_dense().bool(), seen)
        assert not seen.tril().equal(torch.ones_like(seen).tril())

    @pytest.mark.parametrize("mask", [dense_mask, block_mask])
    def test_plain_rows_have_no_mask(self, mask):
        with pytest.raises(ValueError, match="plain sequences; causal attention needs no mask"):
            mask(lay_out([PAIR], SEPARATE, pad_token_id=0))


class TestMaskForAModel:
    @torch.no_grad()
    def test_only_flex_attention_is_told_which_kernel_to_take(self, own_model):
        """Its kernel for decoding, which short rows would get, cannot be compiled for all heads."""
        batch = lay_out([PAIR], EXACT, pad_token_id=0)
        told = {
            "flex_attention": {"attention_mask", "kernel_options"},
            "sdpa": {"attention_mask"},
            "shared_prefix": {"attention_mask", "shared_prefix"},
        }
        for implementation, names in told.items():
            own_model.set_attn_implementation(implementation)
            assert mask_arguments(own_model, batch).keys() == names
        plain = lay_out([PAIR], SEPARATE, pad_token_id=0)
        assert mask_arguments(own_model, plain) == {"attention_mask": None}

    @pytest.fixture
    def batch(self):
        return lay_out(DRAWN, EXACT, pad_token_id=0, pack_length=8)

    def test_sdpa_gets_a_boolean_mask(self, own_model, batch):
        own_model.set_attn_implementation("sdpa")
        assert torch.equal(mask_for(own_model, batch), dense_mask(batch))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_eager_gets_what_is_added_to_its_logits(self, load, batch, dtype):
        model = load("grouped", dtype)
        model.set_attn_implementation("eager")
        mask, visible = mask_for(model, batch), dense_mask(batch)
        assert (mask.dtype, mask.shape) == (dtype, visible.shape)
        assert (mask[visible] == 0).all()
        assert (mask[~visible] == torch.finfo(dtype).min).all()

    @torch.no_grad()
    def test_flex_attention_gets_a_block_mask(self, own_model, batch):
        own_model.set_attn_implementation("flex_attention")
        mask = mask_for(own_model, batch)
        assert isinstance(mask, BlockMask)
        assert torch.equal(create_mask(mask.mask_mod, 2, 1, 8, 8, "cpu"), dense_mask(batch))

    def test_flex_attention_with_gradients_is_refused_on_a_cpu(self, own_model, batch):
        own_model.set_attn_implementation("flex_attention")
        with pytest.raises(ValueError, match=r"no backward pass on a CPU.*--attention sdpa"):
            forward_scores(own_model, batch)

    def test_flash_attention_is_refused(self, own_model, batch):
        own_model.config._attn_implementation = "flash_attention_2"
        expected = (
            r"'flash_attention_2' cannot keep .* apart; take --attention .* --layout separate"
        )
        with pytest.raises(ValueError, match=expected):
            mask_for(own_model, batch)

    @pytest.mark.parametrize("layout", [SEPARATE, CAUSAL])
    @pytest.mark.parametrize(
        "implementation", ["sdpa", "eager", "flex_attention", "flash_attention_2"]
    )
    def test_plain_rows_need_none_whatever_the_model(self, own_model, layout, implementation):
        own_model.config._attn_implementation = implementation
        own_model.config.layer_types = ["sliding_attention"] * 2
        own_model.config.sliding_window = 2
        assert mask_for(own_model, lay_out(DRAWN, layout, pad_token_id=0)) is None


def test_local_attention_that_counts_along_the_row_is_refused():
    config = GPTNeoConfig(
        vocab_size=WORDS, hidden_size=32, num_layers=2, num_heads=2, num_labels=1, pad_token_id=0,
        attention_types=[[["global", "local"], 1]], window_size=8,
    )  # fmt: skip
    model = GPTNeoForSequenceClassification(config).eval()
    batch = lay_out([TokenizedGroup((1, 2), ((3,), (4, 5)))], LAYOUTS["exact"], pad_token_id=0)
    with pytest.raises(
        ValueError, match=r"GPTNeoFor.* has layers of type local.*--layout separate"
    ):
        mask_for(model, batch)


class TestSharingPrefixes:
    def test_it_is_the_default_of_a_llama_and_others_are_as_asked_for(self, grouped_checkpoint):
        for asked_for, expected in (
            (None, "shared_prefix"),
            ("shared_prefix", "shared_prefix"),
            ("sdpa", "sdpa"),
            ("eager", "eager"),
        ):
            model, _ = reward_model.load(grouped_checkpoint, attention=asked_for)
            assert model.config._attn_implementation == expected

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"sliding_window": 8}, "sliding window"),
            ({"attention_dropout": 0.1}, "dropout"),
            ({"attn_logit_softcapping": 50.0}, "caps logits"),
            ({"layer_types": ["chunked_attention"] * 2}, "layers of type chunked_attention"),
        ],
        ids=str,
    )
    def test_other_rules_keep_their_mask(self, own_model, caplog, change, reason):
        own_model.set_attn_implementation("sdpa")
        for name, value in change.items():
            setattr(own_model.config, name, value)
        with caplog.at_level("INFO", "posttrain"):
            share_prefixes(own_model)
        assert reason in caplog.text
        assert own_model.config._attn_implementation == "sdpa"
        with pytest.raises(ValueError, match=f"shared_prefix' is not for Llama.*{reason}"):
            share_prefixes(own_model, asked_for=True)

    def test_a_model_that_is_changed_later_gets_a_mask(self, own_model):
        batch = lay_out([PAIR], EXACT, pad_token_id=0)
        own_model.config.attention_dropout = 0.1
        assert torch.equal(mask_for(own_model, batch), dense_mask(batch))

    @pytest.mark.parametrize("name", ["Mistral", "Gemma2", "Qwen2"])
    def test_models_with_a_window_keep_theirs(self, name):
        model = sliding(name)
        before = model.config._attn_implementation
        share_prefixes(model)
        assert model.config._attn_implementation == before

    def test_code_of_its_own_is_kept(self):
        model = GPTNeoForSequenceClassification(
            GPTNeoConfig(
                vocab_size=WORDS, hidden_size=32, num_layers=2, num_heads=2, num_labels=1,
                pad_token_id=0, attention_types=[[["global"], 2]],
            )
        )  # fmt: skip
        model._supports_attention_backend = False
        with pytest.raises(ValueError, match="attention with code of its own"):
            share_prefixes(model, asked_for=True)

    def test_an_adapted_model_scores_as_in_separate_rows(self, own_model):
        adapted = get_peft_model(own_model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
        torch.manual_seed(0)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter)
        groups = many_groups(12, seed=0)
        with torch.no_grad():
            exact, separate = (
                forward_scores(adapted, lay_out(groups, layout, pad_token_id=0))
                for layout in (EXACT, SEPARATE)
            )
        torch.testing.assert_close(exact, separate, rtol=0, atol=1e-10)


def sliding(name):
    """A model whose attention reaches eight tokens back, in all of its layers or in some."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "Mistral":
            config = MistralConfig(**SMALL, sliding_window=8)
            return MistralForSequenceClassification(config).eval()
        if name == "Gemma2":
            config = Gemma2Config(**SMALL, sliding_window=8, head_dim=16)
            return Gemma2ForSequenceClassification(config).eval()
        config = Qwen2Config(
            **SMALL, sliding_window=8, use_sliding_window=True, max_window_layers=1
        )
        return Qwen2ForSequenceClassification(config).eval()


class TestSlidingWindows:
    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    @pytest.mark.parametrize("name", ["Mistral", "Gemma2", "Qwen2"])
    def test_rows_longer_than_the_window_score_as_if_each_were_alone(self, name, implementation):
        model = sliding(name)
        if name != "Gemma2":  # which has eager attention alone
            model.set_attn_implementation(implementation)
        groups = random_groups([(4, [3, 2]), (9, [12, 3, 20]), (20, [4])], seed=0)
        expected = alone(model, groups)
        for pack_length in (None, 60):
            for layout in (EXACT, SEPARATE):
                scores = score(
                    model, groups, pad_token_id=0, layout=layout, pack_length=pack_length
                )
                torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("mask", [dense_mask, block_mask])
    def test_a_window_counts_positions_of_the_response_itself(self, mask):
        batch = lay_out([TokenizedGroup((1, 2), ((3, 4), (5, 6, 7)))], EXACT, pad_token_id=0)
        made = mask(batch, window=3)
        if mask is block_mask:
            made = create_mask(made.mask_mod, 1, None, 7, 7, "cpu")
        drawn = ["#......", "##.....", "###....", ".###...", "##..#..", ".#..##.", "....###"]
        assert made[0, 0].tolist() == [[cell == "#" for cell in line] for line in drawn]

    @pytest.mark.parametrize("name", ["Mistral", "Gemma2", "Qwen2"])
    def test_a_window_that_hides_nothing_does_not_matter(self, name):
        model = sliding(name)
        groups = random_groups([(3, [3, 2]), (1, [1, 1]), (2, [5, 1])], seed=0)
        expected = alone(model, groups)
        scores = score(model, groups, pad_token_id=0, layout=EXACT, pack_length=8)
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
        causal = score(model, groups, pad_token_id=0, layout=CAUSAL)
        assert relative(causal - expected, expected) > 1e-2

    def test_a_window_that_is_switched_off_does_not_matter(self, own_model):
        batch = lay_out([PAIR], EXACT, pad_token_id=0)
        model = Qwen2ForSequenceClassification(Qwen2Config(**SMALL, sliding_window=2))
        assert torch.equal(mask_for(model, batch), dense_mask(batch))
        own_model.set_attn_implementation("sdpa")
        own_model.config.sliding_window = 2
        own_model.config.use_sliding_window = False
        assert torch.equal(mask_for(own_model, batch), dense_mask(batch))
        own_model.config.use_sliding_window = True
        assert torch.equal(mask_for(own_model, batch), dense_mask(batch, window=2))

    def test_other_kinds_of_layers_are_refused(self, own_model):
        own_model.config.layer_types = ["chunked_attention", "full_attention"]
        with pytest.raises(ValueError, match="has layers of type chunked_attention"):
            mask_for(own_model, lay_out([PAIR], EXACT, pad_token_id=0))


class TestExactScores:
    @settings(deadline=None, max_examples=60)
    @given(
        st.data(),
        GROUPS,
        st.sampled_from([EXACT, Layout(order="shuffled"), SEPARATE]),
        st.integers(0, 99),
    )
    def test_responses_score_as_if_each_were_alone(self, model, data, groups, layout, seed):
        pack_length = draw_pack_length(data, groups, layout)
        pad_token_id = data.draw(st.integers(0, WORDS - 1))
        torch.manual_seed(seed)
        batch = lay_out(groups, layout, pad_token_id=pad_token_id, pack_length=pack_length)
        with torch.no_grad():
            scores = forward_scores(model, batch)
        torch.testing.assert_close(scores, alone(model, groups), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("batch_tokens", [1, 60, 500])
    @pytest.mark.parametrize("pack_length", [None, 101, 300])
    @pytest.mark.parametrize("layout", [EXACT, SEPARATE, Layout(order="shuffled")])
    def test_scores_do_not_depend_on_the_batching(self, model, batch_tokens, pack_length, layout):
        groups = many_groups(12, seed=0)
        scores = score(
            model,
            groups,
            pad_token_id=0,
            layout=layout,
            batch_tokens=batch_tokens,
            pack_length=pack_length,
        )
        torch.testing.assert_close(scores, alone(model, groups), rtol=0, atol=1e-10)

    def test_no_scores_depend_on_the_other_groups_of_a_row(self, model):
        first, *others = many_groups(3, seed=3)
        expected = score(model, [first], pad_token_id=0, layout=EXACT)
        for before, after in ((others, []), ([], others), (others[:1], others[1:])):
            groups = [*before, first, *after]
            batch = lay_out(groups, EXACT, pad_token_id=0, pack_length=500)
            assert len(batch.input_ids) == 1
            start = sum(len(group.responses) for group in before)
            with torch.no_grad():
                scores = forward_scores(model, batch)[start : start + len(first.responses)]
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-10)

    def test_learned_positions_are_met_too(self):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = GPT2Config(
                vocab_size=WORDS,
                n_embd=64,
                n_layer=2,
                n_head=4,
                num_labels=1,
                pad_token_id=0,
                initializer_range=0.2,
                bos_token_id=None,
                eos_token_id=None,
            )
            model = GPT2ForSequenceClassification(config).double().eval()
        groups = many_groups(12, seed=0)
        for layout in (EXACT, SEPARATE):
            scores = score(model, groups, pad_token_id=0, layout=layout, pack_length=300)
            torch.testing.assert_close(scores, alone(model, groups), rtol=0, atol=1e-10)

    @pytest.mark.parametrize("layout", SINGLE, ids=str)
    def test_other_single_rows_are_far_off(self, model, layout):
        groups = many_groups(12, seed=0)
        expected = alone(model, groups)
        for pack_length in (None, 120):
            scores = score(model, groups, pad_token_id=0, layout=layout, pack_length=pack_length)
            off = (scores - expected).abs().max()
            assert off < 1e-10 if layout.is_exact else off > 1e-3

    @pytest.mark.parametrize("pack_length", [None, 120])
    def test_positions_without_a_mask_are_far_off(self, model, monkeypatch, pack_length):
        monkeypatch.setattr(attention, "mask_for", lambda model, batch: None)
        groups = many_groups(12, seed=0)
        scores = score(model, groups, pad_token_id=0, layout=EXACT, pack_length=pack_length)
        assert (scores - alone(model, groups)).abs().max() > 1e-3

    @pytest.mark.parametrize("name", ["trained", "grouped"])
    def test_eager_attention_agrees_up_to_its_float32_softmax(self, load, name):
        model, groups = load(name), many_groups(12, seed=0)
        expected = alone(model, groups)
        model.set_attn_implementation("eager")
        for pack_length in (None, 120):
            scores = score(model, groups, pad_token_id=0, layout=EXACT, pack_length=pack_length)
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)

    def test_a_boolean_mask_hides_nothing_from_eager_attention(self, own_model, monkeypatch):
        own_model.set_attn_implementation("eager")
        monkeypatch.setattr(attention, "mask_for", lambda model, batch: dense_mask(batch))
        groups = many_groups(12, seed=0)
        scores = score(own_model, groups, pad_token_id=0, layout=EXACT)
        assert (scores - alone(own_model, groups)).abs().max() > 1e-3

    @pytest.mark.parametrize(("name", "dtype"), ROUNDING)
    def test_other_precisions_agree_up_to_their_rounding(self, load, name, dtype):
        model, bound = load(name, dtype), ROUNDING[name, dtype]
        double = compute_in_double(load(name, dtype).double())
        for seed in range(3):
            groups = many_groups(60, seed)
            separate = score(model, groups, pad_token_id=0)
            true = score(double, groups, pad_token_id=0)
            rounding = (separate.double() - true).square().mean().sqrt()
            for pack_length in (None, 200):
                exact = score(model, groups, pad_token_id=0, layout=EXACT, pack_length=pack_length)
                assert relative(exact - separate, separate) < bound
                # Exact rows are no further from the truth than separate ones.
                assert (exact.double() - true).square().mean().sqrt() < 1.5 * rounding
            causal = score(model, groups, pad_token_id=0, layout=CAUSAL)
            assert relative(causal - separate, separate) > 8 * bound


def gradients(model, groups, layout, pack_length=None):
    """Gradient of a ranking loss over all pairs of each group, by parameter."""
    batch = lay_out(groups, layout, pad_token_id=0, pack_length=pack_length)
    scores = forward_scores(model, batch.to(model.device))
    pairs, first = [], 0
    for group in groups:
        pairs += itertools.combinations(range(first, first + len(group.responses)), 2)
        first += len(group.responses)
    winners, losers = torch.tensor(pairs).T
    loss = ranking_loss(scores[winners], scores[losers], center_rewards_coefficient=0.01)
    names, parameters = zip(*model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


def furthest(found, expected):
    """The largest difference of two gradients, relative to each parameter's largest entry."""
    largest = {name: gradient.abs().max() for name, gradient in expected.items()}
    assert min(largest.values()) > 1e-5
    return max(
        ((found[name] - gradient).abs().max() / largest[name]).item()
        for name, gradient in expected.items()
    )


class TestExactGradients:
    # Without the first group, a gradient could vanish but for rounding.
    @settings(deadline=None, max_examples=50)
    @given(
        st.data(), LENGTHS, st.sampled_from([EXACT, Layout(order="shuffled")]), st.integers(0, 99)
    )
    def test_gradients_are_those_of_separate_rows(self, model, data, lengths, layout, seed):
        groups = random_groups([(7, [6, 5, 4]), *lengths], seed)
        pack_length = draw_pack_length(data, groups)
        torch.manual_seed(seed)
        found = gradients(model, groups, layout, pack_length)
        assert furthest(found, gradients(model, groups, SEPARATE)) < 1e-8

    def test_gradients_of_causal_rows_are_far_off(self, model):
        groups = many_groups(12, seed=0)
        expected = gradients(model, groups, SEPARATE)
        assert furthest(gradients(model, groups, CAUSAL), expected) > 1e-2
        assert furthest(gradients(model, groups, EXACT, 120), expected) < 1e-8

    def test_rows_of_several_separate_responses_have_the_same_gradients(self, model):
        groups = many_groups(12, seed=0)
        expected = gradients(model, groups, SEPARATE)
        assert furthest(gradients(model, groups, SEPARATE, 120), expected) < 1e-8


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_flex_attention_scores_like_separate_rows(load):
    groups = many_groups(8, seed=0, longest=60)
    model = load("grouped", torch.float32)
    expected = alone(model, groups)
    model.set_attn_implementation("flex_attention")
    # One shape, because every other one is compiled anew.
    batch = lay_out(groups, EXACT, pad_token_id=0, pack_length=300)
    assert batch.input_ids.shape[1] > 2 * 128
    with torch.no_grad():
        scores = forward_scores(model, batch)
    assert relative(scores - expected, expected) < 1e-5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestFlexAttentionOnAGPU:
    @pytest.fixture
    def models(self, load):
        """A model with ordinary attention, and the same with FlexAttention."""
        plain, flex = (load("grouped", torch.float32).to("cuda") for _ in range(2))
        flex.set_attn_implementation("flex_attention")
        return plain, flex

    @pytest.mark.parametrize("pack_length", [None, 300, 1000])
    def test_scores_and_gradients_are_those_of_separate_rows(self, models, pack_length):
        plain, flex = models
        groups = many_groups(24, seed=0, longest=60)
        expected = score(plain, groups, pad_token_id=0)
        scores = score(flex, groups, pad_token_id=0, layout=EXACT, pack_length=pack_length)
        assert relative(scores - expected, expected) < 1e-4
        found = gradients(flex, groups, EXACT, pack_length)
        separate = gradients(plain, groups, SEPARATE)
        assert furthest(found, separate) < 1e-3
