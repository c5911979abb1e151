"""The best responses to each prompt: as if all were sorted, and never all in memory."""

import itertools
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from posttrain.data.messages import Message
from posttrain.data.scorable import Candidates
from posttrain.evaluation.best import APART, NOTHING_LEFT, REPEATED, UNFINISHED, best
from posttrain.evaluation.scoring import Scored


def scored(name, prompt, *pairs, finished=(), domain=None):
    texts = tuple(text for text, _ in pairs)
    names = tuple(f"responses[{place}]" for place in range(len(pairs)))
    group = Candidates(name, (Message("user", prompt),), texts, names, domain, finished)
    scores = dict(zip(names, (score for _, score in pairs), strict=True))
    return Scored(group, scores, parts={"half": {one: scores[one] / 2 for one in names}})


def texts(found):
    return [[one.response for one in row] for row in found]


# Few prompts, texts and scores, so that all of them recur.
records = st.lists(
    st.tuples(
        st.sampled_from("pq"),
        st.lists(
            st.tuples(st.sampled_from("abcd"), st.sampled_from([-1.0, 0.0, 2.5])),
            min_size=1,
            max_size=4,
        ),
    ),
    max_size=8,
)


@given(records=records, most=st.integers(1, 4))
def test_what_is_chosen_is_what_comes_first_of_all_sorted(records, most):
    items = [scored(str(k), prompt, *pairs) for k, (prompt, pairs) in enumerate(records)]
    expected = []
    for _, alike in itertools.groupby(enumerate(records), lambda one: one[1][0]):
        first = {}
        for number, (_, pairs) in alike:
            for text, score in pairs:
                first.setdefault(text, (score, text, str(number)))
        expected.append(sorted(first.values(), key=lambda one: -one[0])[:most])
    counts = Counter()
    found = list(best(iter(items), most, counts=counts))
    assert [[(one.score, one.response, one.id) for one in row] for row in found] == expected
    total = sum(len(pairs) for _, pairs in records)
    everything = list(best(iter(items), 99))
    assert counts[REPEATED] == total - sum(map(len, everything))
    assert all(one.parts == {"half": one.score / 2} for row in found for one in row)


def test_records_of_one_prompt_are_taken_together_as_long_as_they_follow_one_another():
    items = [
        scored("1", "p", ("a", 1.0)),
        scored("2", "p", ("b", 3.0), ("c", 2.0)),
        scored("3", "q", ("a", 5.0)),
        scored("4", "p", ("d", 0.0)),
        scored("5", "p", ("a", 9.0), domain="safety"),
    ]
    counts = Counter()
    found = list(best(items, 2, counts=counts))
    assert texts(found) == [["b", "c"], ["a"], ["d"], ["a"]]
    assert [row[0].id for row in found] == ["2", "3", "4", "5"]
    assert +counts == {APART: 1}


def test_what_its_writer_did_not_end_is_not_chosen():
    items = [
        scored("1", "p", ("a", 9.0), ("b", 1.0), finished=(False, True)),
        scored("2", "q", ("a", 9.0), finished=(False,)),
    ]
    counts = Counter()
    assert texts(best(items, 3, counts=counts)) == [["b"]]
    assert +counts == {UNFINISHED: 2, NOTHING_LEFT: 1}


def test_prompts_are_drawn_as_they_are_needed():
    drawn = []

    def source():
        for number in range(5):
            drawn.append(number)
            yield scored(str(number), f"p{number}", ("a", 1.0))

    found = best(source(), 1)
    next(found)
    next(found)
    assert drawn == [0, 1, 2]


def test_white_space_makes_no_other_response():
    counts = Counter()
    (found,) = best([scored("a", "p", ("so", 1.0), ("so \n", 1.0), ("no", 0.5))], 2, counts=counts)
    assert [one.response for one in found] == ["so", "no"]
    assert counts[REPEATED] == 1
