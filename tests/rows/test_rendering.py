"""What a model reads: ids of the whole text, templates that change it, dates, and hashes."""

import datetime

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from posttrain.data.preferences import Message
from posttrain.errors import UserError
from posttrain.models import embedded
from posttrain.rows.rendering import pin_date, read_responses, render, tokenizer_hash

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPT = (Message("user", "Why?"),)


def fast(model, template=CHATML, *, pre=None, added=("<|im_start|>", "<|im_end|>"), **options):
    backend = Tokenizer(model)
    if pre is not None:
        backend.pre_tokenizer = pre
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", **options)
    tokenizer.add_tokens([AddedToken(token, special=True) for token in added])
    tokenizer.chat_template = template
    return tokenizer


def sentencepiece():
    """Writes the space before a word as ▁, also before the first one."""
    letters = {f"{mark}{letter}": -3.0 for mark in ("▁", "") for letter in "abWhy?.n\nrole"}
    pieces = [("<unk>", 0.0), ("▁", -4.0), *letters.items()]
    return fast(
        models.Unigram(pieces, unk_id=0), pre=pre_tokenizers.Metaspace(prepend_scheme="always")
    )


def merging():
    """Two newlines are one token, and so are a newline and an a."""
    letters = "\nabWhy?.userasitn"
    vocabulary = {letter: number for number, letter in enumerate(dict.fromkeys(letters))}
    vocabulary |= {"\n\n": len(vocabulary), "\na": len(vocabulary) + 1}
    return fast(models.BPE(vocabulary, [("\n", "\n"), ("\n", "a")]))


def stock(tokenizer, prompt, response):
    turns = [{"role": turn.role, "content": turn.content} for turn in prompt]
    turns.append({"role": "assistant", "content": response})
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("make", [sentencepiece, merging, ByT5Tokenizer])
@pytest.mark.parametrize("responses", [("a", "b"), ("\n\na", "\nb"), (" a", "a b"), ("ab", "abb")])
def test_rows_are_those_of_the_whole_text(make, responses):
    tokenizer = make()
    tokenizer.chat_template = CHATML
    reading = read_responses(tokenizer, PROMPT, responses)
    assert reading.rows == tuple(stock(tokenizer, PROMPT, response) for response in responses)
    first, second = (row[:end] for row, end in zip(reading.rows, reading.ends, strict=True))
    assert first[: min(reading.ends)] == second[: min(reading.ends)]
    assert all(end < len(row) for row, end in zip(reading.rows, reading.ends, strict=True))
    assert reading.altered == ()


def test_a_prompt_ends_before_a_token_that_a_response_merges_with():
    tokenizer = merging()
    reading = read_responses(tokenizer, PROMPT, ("b", "a", "\nb"))
    whole = len(tokenizer("<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant")["input_ids"])
    assert reading.ends == (whole + 1, whole, whole)


def test_what_stock_classes_skip_at_the_end_is_no_part_of_a_row():
    tokenizer = embedded.train_tokenizer(["a b"])
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    plain = read_responses(tokenizer, PROMPT, ("a", "a <|end|>", "b"))
    read = read_responses(tokenizer, PROMPT, ("a", "a <|end|>", "b"), skipped_end=end)
    assert [len(row) for row in plain.rows] == [6, 7, 6]
    assert read.rows == (plain.rows[0][:-1], plain.rows[0][:-1], plain.rows[2][:-1])


def test_ids_without_an_embedding_are_refused_with_their_token():
    tokenizer = embedded.train_tokenizer(["a b"])
    known = len(tokenizer)
    tokenizer.add_tokens(["<tool>"])
    assert read_responses(tokenizer, PROMPT, ("a", "b"), vocabulary=known)
    with pytest.raises(UserError, match=rf"token '<tool>' .* has the id {known}.* below {known}"):
        read_responses(tokenizer, PROMPT, ("a", "<tool>"), vocabulary=known)


SYSTEM = (Message("system", "Be brief."), Message("user", "Why?"), Message("assistant", "So."),
          Message("user", "Be brief. So?"))  # fmt: skip


@pytest.mark.parametrize(
    ("template", "responses", "altered"),
    [
        (CHATML, ("a", "b"), ()),
        ("{% for m in messages %}|{{ m.content | trim }}{% endfor %}.", (" a", "b\n"), ()),
        ("{% for m in messages %}|{{ m.content | upper }}{% endfor %}.", ("A", "b"),
         ("system", "user", "assistant", "user", "response")),
        ("{% for m in messages if m.role != 'system' %}|{{ m.content }}{% endfor %}.", ("a", "b"),
         ("system",)),
        ("{% for m in messages %}|{{ m.content.split('</think>')[-1] }}{% endfor %}.",
         ("<think>x</think>a", "b", "<think>x</think>c"), ("response", "response")),
        ("{% for m in messages %}{% if m.role != 'assistant' or loop.last %}|{{ m.content }}"
         "{% endif %}{% endfor %}.", ("a", "b"), ("assistant",)),
        ("{% for m in messages %}|{{ m.role }}{% endfor %}.", ("1", "2"),
         ("system", "user", "assistant", "user", "response", "response")),
    ],
    ids=["all", "trimmed", "capitals", "system", "thoughts", "earlier", "roles"],
)  # fmt: skip
def test_text_that_a_template_leaves_out_or_rewrites_is_named(template, responses, altered):
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = template
    assert read_responses(tokenizer, SYSTEM, responses).altered == altered


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no system role') }}", "no system role"),
        ("{{ messages[0]['content'] + none }}", "concatenate"),
        ("{{ messages[9].content.x }}", "no element 9"),
        ("{% if %}", "Expected an expression"),
    ],
)
def test_a_template_that_fails_is_refused_with_its_reason(template, reason):
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = template
    expected = f"(?s)cannot write a conversation of user.*{reason}.*--chat_template"
    with pytest.raises(UserError, match=expected):
        read_responses(tokenizer, PROMPT, ("a", "b"))


def test_a_template_that_writes_every_conversation_otherwise_is_refused():
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = "{{ messages | length }}: {{ messages[-1].content }}"
    with pytest.raises(UserError, match="from its first token on"):
        read_responses(tokenizer, PROMPT, ("a", "b"))


def test_a_date_is_written_into_a_template():
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = (
        '{% if strftime_now is defined %}{% set day = strftime_now("%d %b %Y") %}{% endif %}'
        "Today: {{ day }}, {{ strftime_now('%Y') }}. {{ messages[0].content }}"
    )
    tokenizer.chat_template = pin_date(tokenizer.chat_template, datetime.date(2024, 7, 26))
    assert render(tokenizer, [{"role": "user", "content": "Why?"}]) == (
        "Today: 26 Jul 2024, 2024. Why?"
    )


@pytest.mark.parametrize(
    "call",
    [
        "{% set form = '%Y' %}{{ strftime_now(form) }}",
        "{{ strftime_now('%Y' ~ '-%m') }}",
        r"{{ strftime_now('%d\n%b') }}",
        r"{{ strftime_now('%d o\'clock') }}",
        "{% set now = strftime_now %}{{ now('%Y') }}",
    ],
)
def test_a_date_that_cannot_be_written_into_a_template_is_refused(call):
    with pytest.raises(UserError, match="scores would change with the day"):
        pin_date(call, datetime.date(2024, 7, 26))


def test_a_template_that_asks_for_no_date_stays_as_it_is():
    for template in (CHATML, "{# no strftime_now('%Y') here #}" + CHATML):
        assert render_with(pin_date(template, datetime.date(2024, 7, 26))) == render_with(template)


def render_with(template):
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = template
    return render(tokenizer, [{"role": "user", "content": "Why?"}])


def changed(change):
    tokenizer = merging()
    change(tokenizer)
    return tokenizer


@pytest.mark.parametrize(
    "change",
    [
        lambda one: setattr(one, "chat_template", CHATML + " "),
        lambda one: setattr(one, "eos_token", "<|im_end|>"),
        lambda one: setattr(one, "pad_token", "<|im_end|>"),
        lambda one: one.add_tokens(["ab"]),
        lambda one: one.add_tokens([AddedToken("b", lstrip=True)]),
        lambda one: setattr(one.backend_tokenizer, "normalizer", normalizers.Lowercase()),
        lambda one: setattr(one, "split_special_tokens", True),
    ],
    ids=["template", "eos", "pad", "token", "stripping", "normalizer", "splitting"],
)
def test_a_hash_changes_with_all_that_decides_the_ids(change):
    assert tokenizer_hash(merging()) == tokenizer_hash(merging())
    assert tokenizer_hash(changed(change)) != tokenizer_hash(merging())


def test_a_hash_knows_classes_and_tokenizers_without_a_backend(tmp_path):
    one, other = ByT5Tokenizer(), ByT5Tokenizer(extra_ids=3)
    assert tokenizer_hash(one) != tokenizer_hash(other)
    one.chat_template = CHATML
    one.save_pretrained(tmp_path)
    loaded = ByT5Tokenizer.from_pretrained(tmp_path)
    assert tokenizer_hash(loaded) == tokenizer_hash(ByT5Tokenizer.from_pretrained(tmp_path))


def test_a_hash_does_not_depend_on_where_a_tokenizer_lies(tmp_path):
    merging().save_pretrained(tmp_path / "one")
    merging().save_pretrained(tmp_path / "two")
    hashes = {
        tokenizer_hash(PreTrainedTokenizerFast.from_pretrained(tmp_path / name))
        for name in ("one", "two")
    }
    assert len(hashes) == 1
