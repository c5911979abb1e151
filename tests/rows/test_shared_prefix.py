"""Attention in two pieces against dense masks and separate rows, on a CPU and on a GPU."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, LlamaForSequenceClassification
from two_pieces import (
    MANY,
    SEPARATE,
    by_mask,
    last_states,
    parts,
    random_groups,
    rows_of,
    small_model,
    states_for,
    with_gradients,
)

from posttrain.rows import segments, shared_prefix
from posttrain.rows.attention import dense_mask, mask_arguments
from posttrain.rows.layout import lay_out
from posttrain.rows.shared_prefix import attend

LENGTHS = st.lists(
    st.tuples(st.integers(1, 12), st.lists(st.integers(1, 12), min_size=1, max_size=6)),
    min_size=1,
    max_size=6,
)


def assert_same(batch, **sizes):
    states = states_for(batch, **sizes)
    found, gradients = with_gradients(attend(*states, parts(batch)), states, batch)
    expected, others = with_gradients(by_mask(*states, batch), states, batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for gradient, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(gradient, other, rtol=0, atol=1e-11)


class TestAttention:
    @settings(deadline=None, max_examples=60)
    @given(LENGTHS, st.none() | st.integers(84, 200), st.sampled_from([1, 3, 256]))
    def test_outputs_and_gradients_are_those_of_the_mask(self, lengths, pack_length, queries):
        batch = rows_of([(4, [3, 2]), *lengths], pack_length)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shared_prefix, "QUERIES", queries)
            assert_same(batch)

    @pytest.mark.parametrize("pack_length", [None, 2500])
    @pytest.mark.parametrize(
        "sizes", [{}, {"key_heads": 4}, {"key_heads": 1}, {"value_size": 6}], ids=str
    )
    def test_many_responses_and_other_heads(self, pack_length, sizes):
        assert_same(rows_of(MANY, pack_length), **sizes)

    @pytest.mark.parametrize(("padding", "call"), [(0, 0), (9, 1 << 30)])
    @pytest.mark.parametrize("keys", [1, 100, 1 << 20])
    def test_pieces_of_any_size_give_the_same(self, monkeypatch, keys, padding, call):
        for name, value in (("KEYS", keys), ("PADDING", padding), ("CALL", call)):
            monkeypatch.setattr(segments, name, value)
        assert_same(rows_of(MANY[1:], 120))

    def test_rows_of_prompts_alone_are_causal(self):
        groups = random_groups([(3, [2]), (4, [4]), (9, [1])])
        assert_same(lay_out(groups, SEPARATE, pad_token_id=0, pack_length=14))

    def test_another_scale(self):
        batch = rows_of([(3, [2, 4])])
        query, key, value = states_for(batch)
        scaled = attend(query, key, value, parts(batch), scale=0.5)
        other = attend(query * 0.5 * 8**0.5, key, value, parts(batch))
        torch.testing.assert_close(scaled, other)

    def test_responses_without_a_prompt_see_themselves(self):
        batch = rows_of([(2, [3, 4])])
        kept = slice(2, None)
        cut = type(batch)(*(
            part[:, kept] if part.dim() == 2 else part for part in batch.tensors().values()
        ))  # fmt: skip
        assert cut.segment_id.min() == 1
        assert_same(cut)

    def test_a_gradient_in_half_precision_is_summed_in_float32(self):
        """A prompt's gradient is a sum over its responses, which would stop growing at 256."""
        index = torch.zeros(1000, dtype=torch.long)
        states = torch.zeros(1, 1, dtype=torch.bfloat16, requires_grad=True)
        shared_prefix._gather(states, index).sum().backward()
        assert states.grad.item() == 1000


class TestPieces:
    @settings(deadline=None)
    @given(LENGTHS, st.none() | st.integers(84, 200))
    def test_each_segment_is_in_one_piece(self, lengths, pack_length):
        batch = rows_of([(4, [3, 2]), *lengths], pack_length)
        starts = [start for piece in parts(batch).pieces for start in piece.members.start]
        groups = random_groups([(4, [3, 2]), *lengths])
        assert len(starts) == len(set(starts)) == sum(1 + len(g.responses) for g in groups)

    def test_what_is_computed_is_little_more_than_what_is_seen(self):
        batch = rows_of(MANY * 3 + [(700, [100] * 5), (90, [5, 100])], 3000)
        computed = sum(
            len(piece.members.start) * piece.longest * (piece.prompt + piece.longest)
            for piece in parts(batch).pieces
        )
        seen = dense_mask(batch)[:, 0][batch.document_id >= 0].sum().item()
        assert computed < 2 * seen + len(parts(batch).pieces) * segments.CALL

    def test_memory_is_linear_in_prompts_times_responses_and_responses(self):
        """What a forward keeps for its gradient, against a mask of as many bytes for the row."""

        def kept(lengths):
            batch = rows_of(lengths)
            states = states_for(batch, heads=1, key_heads=1, dtype=torch.float32)
            storages = {}

            def keep(tensor):
                storage = tensor.untyped_storage()
                storages[storage.data_ptr()] = (storage.nbytes(), tensor)
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                attend(*states, parts(batch))
            saved = sum(size for size, _ in storages.values())
            return saved / (4 * batch.input_ids.numel() ** 2)

        small = kept([(1000, [500] * 2)])
        # With twice the tokens, a row's mask is four times as large.
        for lengths in ([(2000, [500] * 4)], [(2000, [1000] * 2)], [(1000, [1500] * 2)]):
            assert kept(lengths) < 0.6 * small < 0.1
        assert kept([(50, [60] * 32)]) < 0.1

    def test_no_tensor_is_larger_than_a_block_of_queries_and_their_keys(self, monkeypatch):
        shapes = []

        def watched(query, key, value, **options):
            mask = options.get("attn_mask")
            shapes.append((query.shape[2], None if mask is None else tuple(mask.shape)))
            assert query.shape[0] == 1 or query.shape[0] * key.shape[2] <= segments.KEYS
            return scaled_dot_product_attention(query, key, value, **options)

        monkeypatch.setattr(shared_prefix, "scaled_dot_product_attention", watched)
        monkeypatch.setattr(segments, "KEYS", 2000)
        batch = rows_of([(300, [600] * 7)])
        assert_same(batch, heads=1, key_heads=1)
        masked = [(queries, mask) for queries, mask in shapes if mask is not None]
        assert max(queries for queries, _ in masked) == shared_prefix.QUERIES
        assert all(mask[-2] <= shared_prefix.QUERIES and mask[-1] <= 900 for _, mask in masked)


class TestArgumentsOfVarlen:
    @settings(deadline=None)
    @given(LENGTHS, st.none() | st.integers(84, 200))
    def test_sequences_end_together_and_see_what_the_mask_shows(self, lengths, pack_length):
        """One query sequence a segment, whose last query sees all of its keys."""
        batch = rows_of([(4, [3, 2]), *lengths], pack_length)
        found = parts(batch).sequences
        keys, query_bounds, key_bounds = found.keys, found.query_bounds, found.key_bounds
        longest = batch.input_ids.shape[1]
        assert query_bounds.dtype == key_bounds.dtype == torch.int32
        assert query_bounds[-1] == batch.input_ids.numel()
        assert key_bounds[-1] == len(keys)
        assert found.longest_query == query_bounds.diff().max()
        assert found.longest_key == key_bounds.diff().max()
        readers = found.readers.split(found.reader_bounds.diff().tolist())
        assert [set(keys[some].tolist()) for some in readers if len(some)] == [
            {token} for token in sorted(set(keys.tolist()))
        ]
        assert sorted(found.readers.tolist()) == list(range(len(keys)))
        seen = torch.zeros(batch.input_ids.numel(), longest, dtype=torch.bool)
        bounds = zip(
            itertools.pairwise(query_bounds.tolist()),
            itertools.pairwise(key_bounds.tolist()),
            strict=True,
        )
        for (start, stop), (first, last) in bounds:
            for query in range(start, stop):
                seen[query, keys[first : last - (stop - 1 - query)] % longest] = True
        real = batch.document_id >= 0
        assert torch.equal(seen.view(*real.shape, longest)[real], dense_mask(batch)[:, 0][real])

    @settings(deadline=None, max_examples=20)
    @given(LENGTHS, st.none() | st.integers(84, 200), st.sampled_from([1, 2, 4]))
    def test_one_call_with_them_gives_what_the_mask_gives(self, lengths, pack_length, key_heads):
        """With what torch documents of its kernel, which computes on a GPU alone."""

        def documented(
            query, key, value, query_bounds, key_bounds, longest_query, longest_key,
            *, scale, window_size, enable_gqa=False,
        ):  # fmt: skip
            assert window_size == (-1, 0)
            assert enable_gqa == (query.shape[1] != key.shape[1])
            outputs = []
            bounds = (itertools.pairwise(b.tolist()) for b in (query_bounds, key_bounds))
            for (start, stop), (first, last) in zip(*bounds, strict=True):
                mask = torch.ones(stop - start, last - first).tril(last - first - stop + start)
                parts = (query[start:stop], key[first:last], value[first:last])
                outputs.append(
                    scaled_dot_product_attention(
                        *(part.transpose(0, 1)[None] for part in parts),
                        attn_mask=mask.bool(), scale=scale, enable_gqa=enable_gqa,
                    )[0].transpose(0, 1)
                )  # fmt: skip
            return torch.cat(outputs)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(shared_prefix, "varlen_attn", documented)
            patch.setattr(shared_prefix, "_takes_sequences", lambda query, value: True)
            assert_same(rows_of([(4, [3, 2]), *lengths], pack_length), key_heads=key_heads)


class TestInAModel:
    def test_it_reaches_every_layer_once(self, monkeypatch):
        model, batch = small_model(num_hidden_layers=5), rows_of([(3, [2, 4])])
        layers = []

        def counted(*states, **options):
            layers.append(states[-1])
            return attend(*states, **options)

        monkeypatch.setattr(shared_prefix, "attend", counted)
        last_states(model, batch)
        assert len(layers) == 5
        assert len(set(map(id, layers))) == 1

    def test_plain_rows_are_those_of_sdpa_to_the_bit(self):
        batch = lay_out(random_groups([(3, [2, 4])]), SEPARATE, pad_token_id=0)
        found, expected = (
            last_states(small_model(name), batch) for name in ("shared_prefix", "sdpa")
        )
        assert torch.equal(found, expected)
        # As stock classes are called: with a mask of padding, which may stand on the left.
        mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])
        found, expected = (
            small_model(name)(batch.input_ids, attention_mask=mask).logits
            for name in ("shared_prefix", "sdpa")
        )
        assert torch.equal(found, expected)

    def test_with_gradient_checkpointing_gradients_are_the_same(self):
        batch = rows_of(MANY[1:], 120)
        gradients = []
        for checkpointing in (False, True):
            model = small_model().train()
            if checkpointing:
                model.gradient_checkpointing_enable()
            last_states(model, batch).square().sum().backward()
            gradients.append([p.grad for p in model.base_model.parameters()])
        for found, expected in zip(*gradients, strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)

    def test_in_autocast_it_computes_in_the_lower_precision(self):
        batch = rows_of([(3, [2, 4])])
        model = small_model(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            query, key, value = states_for(batch, dtype=torch.float32)
            assert attend(query, key, value, parts(batch)).dtype == torch.bfloat16
            states = last_states(model, batch)
        expected = last_states(model, batch)
        assert (states - expected).norm() < 0.05 * expected.norm()

    def test_a_saved_folder_does_not_name_it(self, tmp_path):
        small_model().save_pretrained(tmp_path)
        assert shared_prefix.NAME not in (tmp_path / "config.json").read_text()
        loaded = LlamaForSequenceClassification.from_pretrained(tmp_path)
        assert loaded.config._attn_implementation == "sdpa"
        assert AutoConfig.from_pretrained(tmp_path)._attn_implementation != shared_prefix.NAME

    def test_a_layer_that_is_told_nothing_says_so(self):
        batch = rows_of([(3, [2, 4])])
        model = small_model()
        arguments = mask_arguments(model, batch)
        del arguments["shared_prefix"]
        with pytest.raises(ValueError, match=r"LlamaAttention was not told .*--attention sdpa"):
            model(batch.input_ids, position_ids=batch.position_ids, **arguments)

    @pytest.mark.parametrize("name", ["dropout", "softcap", "s_aux"])
    def test_what_it_cannot_compute_is_refused(self, name):
        batch = rows_of([(3, [2, 4])])
        states = states_for(batch)
        with pytest.raises(ValueError, match=f"has no {name}, which Module needs"):
            shared_prefix.forward(
                nn.Module(), *states, None, shared_prefix=parts(batch), **{name: 0.5}
            )
