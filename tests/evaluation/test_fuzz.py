"""One rule for every record, chat template and tokenizer there may be.

    Scored here, a response has the score that the stock classifier gives to the whole conversation,
    rendered once and tokenised once; or it is refused with a UserError that the rule below expects.

Never is there another exception, and never another number: not beside other records, in a row that
responses share, in a batch of any size, or where a sibling is longer.

``make test`` tries the same 200 examples each time, ``make fuzz`` 10,000 new ones. What fails is
printed as small as it can be made. Helpers ``fuzz_*.py`` say what is tried.
"""

import os
from copy import deepcopy
from dataclasses import dataclass, replace

import pytest
import torch
from fuzz_records import files
from fuzz_templates import ORDINARY, templates
from fuzz_tokenizers import KINDS, VOCABULARY, build, tokenizers
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForSequenceClassification

from posttrain.data.preferences import Message, RankedGroup
from posttrain.errors import UserError
from posttrain.evaluation.scoring import limits_for, score_groups
from posttrain.models.float64 import compute_in_double
from posttrain.models.reward_model import as_reward_model
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.tokenization import Limits, tokenize_group

EXAMPLES = os.environ.get("POSTTRAIN_FUZZ")
fuzz = settings(
    max_examples=int(EXAMPLES or 200),
    # Whoever changes something is to see what they broke, not what nobody had found before.
    derandomize=EXAMPLES is None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def small_llama():
    """Random, with attention that is far from even and scores that differ by several units."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_labels=1, initializer_range=0.5, max_position_embeddings=4096,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForSequenceClassification(config).double().eval()
        torch.nn.init.normal_(model.score.weight)
    # Norms and angles as well: in float32 they would hide differences below 1e-7.
    return compute_in_double(model)


MODEL = small_llama()
#: What other programs use: transformers' own class, which posttrain does not touch.
STOCK = deepcopy(MODEL)


def turns(messages) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def stock_ids(tokenizer, messages, **options) -> list[int]:
    """A conversation, rendered once and tokenised once."""
    text = tokenizer.apply_chat_template(turns(messages), tokenize=False, **options)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def stock_score(ids: list[int], pad_token_id: int | None) -> float:
    STOCK.config.pad_token_id = pad_token_id
    return STOCK(torch.tensor([ids])).logits.item()


@dataclass(frozen=True)
class Conversation:
    """What stock programs read of a group."""

    prompt: list[int]  #: Up to where a response begins.
    rows: list[list[int]]  #: With each of the responses.
    refusal: str = ""  #: Why there can be no score, if so.

    @classmethod
    def of(cls, tokenizer, group) -> "Conversation":
        try:
            rows = [
                stock_ids(tokenizer, [*group.prompt, Message("assistant", response)])
                for response in group.responses
            ]
            prompt = stock_ids(tokenizer, group.prompt, add_generation_prompt=True)
        except Exception:
            return cls([], [], "the template fails")
        return cls(prompt, rows).checked()

    def checked(self) -> "Conversation":
        if min(map(self.shared, self.rows)) < 1:
            return replace(self, refusal="no token of the prompt stays as it was")
        return self

    def shared(self, row) -> int:
        """Tokens of a row that are the prompt's; the last, which is scored, is the response's."""
        pairs = enumerate(zip(self.prompt, row, strict=False))
        same = next((k for k, (a, b) in pairs if a != b), min(len(self.prompt), len(row)))
        return min(same, len(row) - 1)

    def read(self, pad_token_id: int | None, most_tokens: int | None) -> "Conversation":
        """What a stock classifier reads: no padding at the end; and then the last tokens only."""
        rows = []
        for row in self.rows:
            while row and row[-1] == pad_token_id:
                row = row[:-1]
            rows.append(row)
        found = replace(self, rows=rows).checked()
        if found.refusal or most_tokens is None:
            return found
        if any(len(row) - self.shared(row) >= most_tokens for row in rows):
            return replace(found, refusal="no room for a prompt")
        return replace(found, rows=[row[-most_tokens:] for row in rows])


def scored(model, tokenizer, groups, *, layout, max_tokens, pack_length, batch_tokens):
    limits = limits_for(model, LAYOUTS[layout], max_tokens=max_tokens, pack_length=pack_length)
    found = score_groups(
        model, tokenizer, groups, LAYOUTS[layout], limits,
        batch_tokens=batch_tokens, pack_length=pack_length,
    )  # fmt: skip
    return [list(one.scores.values()) for one in found]


#: What changes cost, and no score.
ROWS = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(["separate", "exact"]),
        "pack_length": st.sampled_from([None, None, 40, 1000]),
        "batch_tokens": st.sampled_from([1, 64, 8192]),
    }
)


@fuzz
@given(
    kind=tokenizers(), template=templates(), groups=files(), rows=ROWS,
    max_tokens=st.none() | st.integers(4, 120), names_padding=st.booleans(),
)  # fmt: skip
def test_scores_are_those_of_the_stock_classifier_or_refused(
    kind, template, groups, rows, max_tokens, names_padding
):
    tokenizer = build(**kind)
    tokenizer.chat_template = template
    # As the checkpoint has it. A classifier that knows its padding skips it at the end.
    pad_token_id = tokenizer.pad_token_id if names_padding else None
    MODEL.config.pad_token_id = pad_token_id
    model = as_reward_model(MODEL, tokenizer)
    most = min((n for n in (max_tokens, rows["pack_length"]) if n), default=None)
    fine, expected = [], []
    for group in groups:
        read = Conversation.of(tokenizer, group)
        if not read.refusal:
            read = read.read(pad_token_id, most)
        event(read.refusal or "scored")
        if read.refusal:
            with pytest.raises(UserError):
                scored(model, tokenizer, [group], max_tokens=max_tokens, **rows)
            continue
        by_stock = [stock_score(row, pad_token_id) for row in read.rows]
        expected.append(pytest.approx(by_stock, rel=1e-9, abs=1e-9))
        fine.append(group)
        # A response is cut by its own need; a sibling that is longer takes nothing from it.
        assert scored(model, tokenizer, [group], max_tokens=max_tokens, **rows) == expected[-1:]
    # Neighbours in the file, the batch and the row change nothing.
    if len(fine) > 1:
        assert scored(model, tokenizer, fine, max_tokens=max_tokens, **rows) == expected


@fuzz
@given(tokenizers(), templates(), files(), st.integers(4, 120))
def test_prompt_and_response_make_up_the_whole_conversation(kind, template, groups, max_tokens):
    tokenizer = build(**kind)
    tokenizer.chat_template = template
    for group in groups:
        whole = Conversation.of(tokenizer, group)
        event(whole.refusal or "split")
        if whole.refusal:
            with pytest.raises(UserError):
                tokenize_group(tokenizer, group, keep_equal=True)
            continue
        found = tokenize_group(tokenizer, group, keep_equal=True)
        assert [[*found.prompt, *response] for response in found.responses] == whole.rows
        # All that responses share of the prompt; where they begin alike, it ends where it ended.
        shared = min(map(whole.shared, whole.rows))
        assert len(found.prompt) == shared
        # In training all lose the same of the prompt: what a row lacks must not tell its length.
        longest, limits = max(map(len, whole.rows)), Limits(max_tokens=max_tokens)
        if longest - shared >= max_tokens:
            with pytest.raises(UserError):
                tokenize_group(tokenizer, group, limits, keep_equal=True)
            continue
        cut = tokenize_group(tokenizer, group, limits, keep_equal=True)
        assert cut.trimmed == max(0, longest - max_tokens)
        assert cut.responses == found.responses
        assert cut.prompt == found.prompt[cut.trimmed :]


@pytest.mark.parametrize("template", ORDINARY)
@pytest.mark.parametrize("kind", [*KINDS, "ByT5"])
def test_what_is_ordinary_is_scored(kind, template):
    # The rules above would hold vacuously if all were refused, or if all scores were the same.
    tokenizer = build(kind)
    tokenizer.chat_template = ORDINARY[template]
    prompt = (Message("system", "Be kind."), Message("user", "Why no cat? "))
    group = RankedGroup("a", prompt, ("Because the cat.", " No", "No\n\nthe 42 é"))
    whole = Conversation.of(tokenizer, group)
    assert not whole.refusal
    scores = {round(stock_score(row, tokenizer.pad_token_id), 3) for row in whole.rows}
    assert len(scores) == 3
