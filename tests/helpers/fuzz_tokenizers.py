"""Small tokenizers of every kind that models come with, built in code and drawn by hypothesis.

What they have in common is what makes them dangerous: the ids of two texts, one after the other,
need not be the ids of the two joined. Merges reach across newlines and spaces, a leading space is
added once, normalizers and added tokens take spaces from their neighbours.
"""

from functools import lru_cache

from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

#: Ids that the model has embeddings for; every vocabulary below is smaller.
VOCABULARY = 512
SPECIAL = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
#: What templates write around turns; each tokenizer knows some of it as one token.
MARKERS = ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "[INST]", "[/INST]")
_PRINTABLE = [chr(code) for code in range(33, 127)]
_WORDS = (
    "the", "The", "cat", "no", "No", "yes", "Because", "because", "user", "assistant", "system",
    "think", "im_start", "im_end", "\u00e9", "42", ".", ",", "?", ":", "<", ">", "|", "/", "[", "]",
)  # fmt: skip


def _merges(vocabulary: dict[str, int], joined: list[str]) -> list[tuple[str, str]]:
    """Merges that build each text from its left, with what is between entered in the vocabulary."""
    merges = []
    for text in joined:
        for end in range(2, len(text) + 1):
            pair = (text[: end - 1], text[end - 1])
            if pair not in merges:
                merges.append(pair)
                vocabulary.setdefault(text[:end], len(vocabulary))
    return merges


def _of(tokens) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}


def _byte_level(across: bool, prefix: bool) -> Tokenizer:
    """GPT-2's kind; ``across`` words, merges join newlines and spaces with what is around them."""
    space, newline = "\u0120", "\u010a"
    vocabulary = _of([*SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())])
    joined = [newline * 2, f"{space}the", "cat", f"{space}no", space * 2]
    if across:
        joined += [
            f":{newline}",
            f">{newline}",
            f"?{newline}{newline}",
            f"{newline}The",
            f".{space}",
        ]
    tokenizer = Tokenizer(models.BPE(vocabulary, _merges(vocabulary, joined)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=prefix, use_regex=not across
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(scheme: str, unigram: bool) -> Tokenizer:
    """Llama 2's and Gemma's kind: ▁ for spaces, one of them before a text, bytes for the rest."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["\u2581", *_PRINTABLE, "\n"]
    joined = ["\u2581the", "\u2581The", "\u2581no", "cat", "\u2581\u2581", "\n\n", ".\n"]
    if unigram:
        scores = [(token, 0.0) for token in (*SPECIAL.values(), *fallback)]
        scores += [(token, -6.0) for token in pieces] + [(token, -4.0) for token in joined]
        model = models.Unigram(scores, unk_id=3, byte_fallback=True)
    else:
        vocabulary = _of([*SPECIAL.values(), *fallback, *pieces])
        merges = _merges(vocabulary, joined)
        model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if scheme == "normalizer":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(
            prepend_scheme=scheme, split=scheme != "never"
        )
    return tokenizer


def _words(pieces: bool) -> Tokenizer:
    """BERT's kind, which loses spaces; without ``pieces`` unknown words are all the same."""
    known = [*SPECIAL.values(), *_WORDS, *_PRINTABLE]
    if pieces:
        known += [f"##{character}" for character in _PRINTABLE]
        tokenizer = Tokenizer(models.WordPiece(_of(known), unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        tokenizer = Tokenizer(models.WordLevel(_of(known), unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def _characters() -> Tokenizer:
    known = [*SPECIAL.values(), *_PRINTABLE, " ", "\n", "\t", "\u00e9", "\u0301"]
    tokenizer = Tokenizer(models.WordLevel(_of(known), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return tokenizer


KINDS = {
    "bytes": lambda: _byte_level(across=False, prefix=False),
    "bytes, merged across words": lambda: _byte_level(across=True, prefix=False),
    "bytes, space before": lambda: _byte_level(across=False, prefix=True),
    "pieces, space before the first": lambda: _sentence_piece("first", unigram=False),
    "pieces, space before each": lambda: _sentence_piece("always", unigram=False),
    "pieces, space by a normalizer": lambda: _sentence_piece("normalizer", unigram=False),
    "pieces, no space": lambda: _sentence_piece("never", unigram=False),
    "unigrams": lambda: _sentence_piece("always", unigram=True),
    "words": lambda: _words(pieces=False),
    "word pieces": lambda: _words(pieces=True),
    "characters": _characters,
}
NORMALIZERS = {
    "as it is": None,
    "lower case": normalizers.Lowercase(),
    "NFKC": normalizers.NFKC(),
    "no accents": normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "stripped": normalizers.Strip(),
    "one newline for two": normalizers.Replace("\n\n", "\n"),
}


@lru_cache(maxsize=64)
def build(
    kind: str,
    normalizer: str = "as it is",
    known: tuple[str, ...] = MARKERS,
    flags: tuple[str, ...] = ("special",),
    has_bos: bool = False,
    pad_token: str = SPECIAL["pad_token"],
):
    """A tokenizer without a chat template.

    Args:
        kind: A key of :data:`KINDS`, or ``ByT5``, which is written in Python.
        normalizer: A key of :data:`NORMALIZERS`.
        known: Markers that are one token each; the others are text.
        flags: What added tokens do: ``lstrip``, ``rstrip``, ``normalized``, ``special``.
        has_bos: Whether it puts a token before each text unless told otherwise.
        pad_token: Padding; often it is the token that ends a text as well.
    """
    added = [AddedToken(text, **dict.fromkeys(flags, True)) for text in known]
    special = SPECIAL | {"pad_token": pad_token}
    if kind == "ByT5":
        del special["bos_token"]  # it has none
        tokenizer = ByT5Tokenizer(**special, extra_ids=0)
        tokenizer.add_tokens(added)
        return tokenizer
    backend = KINDS[kind]()
    if NORMALIZERS[normalizer] is not None:
        own = [backend.normalizer] if backend.normalizer else []
        backend.normalizer = normalizers.Sequence([NORMALIZERS[normalizer], *own])
    backend.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL.values()])
    backend.add_tokens(added)
    if has_bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 0)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def tokenizers():
    """Settings of :func:`build`."""
    flags = ("lstrip", "rstrip", "normalized", "special")
    subsets = st.lists(st.sampled_from(flags), unique=True).map(lambda some: tuple(sorted(some)))
    return st.fixed_dictionaries(
        {
            "kind": st.sampled_from([*KINDS, "ByT5"]),
            "normalizer": st.sampled_from(list(NORMALIZERS)),
            "known": st.sampled_from([MARKERS, MARKERS[:2], ()]),
            "flags": st.just(("special",)) | subsets,
            "has_bos": st.booleans(),
            "pad_token": st.sampled_from([SPECIAL["pad_token"], SPECIAL["eos_token"]]),
        }
    )
