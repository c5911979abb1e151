"""Records with all that people and models write: spaces, markers, answers that begin alike."""

from fuzz_tokenizers import MARKERS, SPECIAL
from hypothesis import strategies as st

from posttrain.data.preferences import Message, RankedGroup

_WORDS = ("the", "The", "cat", "no", "Because", "yes.", "42", "user", "assistant:", "?")
_SPACES = (" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u200b")
# Composed and decomposed, a ligature, an emoji of several characters, right to left, no BMP.
_UNUSUAL = (
    "\u00e9",
    "e\u0301",
    "\ufb01",
    "\u0130",
    "👩\u200d🚀",
    "😀",
    "你好",
    "שלום",
    "\u0301",
    "\x00",
)
_MARKERS = (*MARKERS, *SPECIAL.values(), "\n\nHuman:", "{{ x }}", "</s>", "\u2581", "\u0120")

_pieces = (
    st.sampled_from(_WORDS) | st.sampled_from(_SPACES) | st.sampled_from(_WORDS)
    | st.sampled_from(_UNUSUAL) | st.sampled_from(_MARKERS)
    | st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=3)
)  # fmt: skip


def texts(max_size: int = 8):
    """Texts that a record may hold: not blank."""
    joined = st.lists(_pieces, min_size=1, max_size=max_size).map("".join)
    return joined.map(lambda text: text if text.strip() else f"{text}?")


@st.composite
def responses(draw) -> tuple[str, ...]:
    """Two or three of them, often with the same beginning; or one is the beginning of another."""
    count = draw(st.integers(2, 3))
    begun = draw(st.just("") | texts(4))
    ends = st.lists(
        texts(5) | st.sampled_from(_WORDS), min_size=count, max_size=count,
        unique_by=lambda end: (begun + end).strip(),
    )  # fmt: skip
    found = [begun + end for end in draw(ends)]
    if begun.strip() and draw(st.booleans()) and begun.strip() not in map(str.strip, found):
        found[draw(st.integers(0, count - 1))] = begun
    return tuple(found)


@st.composite
def records(draw, number: int = 0) -> RankedGroup:
    """A record: perhaps a system message, one to three user turns, and the responses."""
    turns = [Message("system", draw(texts(4)))] if draw(st.booleans()) else []
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        turns += [Message("user", draw(texts(5))), Message("assistant", draw(texts(6)))]
    turns.append(Message("user", draw(texts())))
    return RankedGroup(f"record {number}", tuple(turns), draw(responses()))


def files():
    """One to three records that are scored together."""
    return st.integers(1, 3).flatmap(lambda count: st.tuples(*map(records, range(count))))
