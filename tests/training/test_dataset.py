"""Data on disk: what is read comes back, what is tokenised equals the same done by hand."""

import json
import math
import os
import signal
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from posttrain.data import store
from posttrain.data.mixing import mix, parse_mix
from posttrain.data.preferences import Message, RankedGroup
from posttrain.data.reading import read_groups, write_groups
from posttrain.data.sources import named
from posttrain.data.sources.hub import registry
from posttrain.data.sources.simulator import annotators, tasks
from posttrain.data.sources.simulator.annotators import simulate, stream_ranked
from posttrain.data.splits import split
from posttrain.data.store import Stored, group_of, stored
from posttrain.models import reward_model
from posttrain.rows.layout import LAYOUTS
from posttrain.rows.tokenization import Limits, NoPairError, TooLongError, tokenize_group
from posttrain.storage import cache
from posttrain.training import dataset
from posttrain.training.collator import GroupCollator, training_set
from posttrain.training.dataset import FEATURES, tokenized
from posttrain.training.pairing import Pairing

datasets.disable_progress_bars()

#: Everything that a group may carry, and groups that carry less.
GROUPS = [
    RankedGroup(
        "all",
        (
            Message("system", "Be brief."),
            Message("user", "Cats?\nOr dogs?"),
            Message("assistant", "Either."),
            Message("user", "Decide! 🐈"),
        ),
        ("Cats, both.", "Cats.", "Dogs."),
        strength=3,
        margin=-0.25,
        cluster_id="pets",
        domain="helpfulness",
    ),
    RankedGroup("none", (Message("user", "Why?"),), ("Because.", "No.")),
    RankedGroup("some", (Message("user", "Why?"),), ("So.", "Well …"), strength=1, margin=0.0),
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tokenizer(tiny_checkpoint):
    return reward_model.load(tiny_checkpoint)[1]


def write(path, groups):
    write_groups(path, groups)
    return str(path)


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "mine.jsonl", GROUPS)


@pytest.fixture
def drawn(tmp_path):
    """Simulated groups of two and of three responses, with strengths, and their file."""
    groups = [group.ranked for group in simulate(40, seed=5, edited_share=0.5)]
    assert {len(group.responses) for group in groups} == {2, 3}
    return groups, write(tmp_path / "drawn.jsonl", groups)


@pytest.fixture
def reads(monkeypatch):
    """The sources that are read, in the order in which that happens."""
    seen = []
    iterate = named.iterate

    def watched(source, **options):
        seen.append(source)
        return iterate(source, **options)

    monkeypatch.setattr(named, "iterate", watched)
    return seen


def test_groups_come_back_as_they_were(file):
    found = stored([file])
    assert list(found) == GROUPS
    assert [group.margin for group in found] == [-0.25, None, 0.0]
    assert [group.cluster_id for group in found][1:] == [GROUPS[1].cluster_id] * 2
    assert found.counts == {}


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_groups_come_back_from_any_number_of_batches(monkeypatch, file, batch):
    monkeypatch.setattr(dataset, "ROWS_PER_BATCH", batch)
    assert list(stored([file])) == GROUPS


def test_several_sources_follow_one_another(file):
    found = stored(["simulator:5:3", file, "simulator:2"])
    simulated = [list(stream_ranked(n, seed=seed)) for n, seed in ((5, 3), (2, 0))]
    assert list(found) == [*simulated[0], *GROUPS, *simulated[1]]


def test_some_groups_are_selected_in_the_order_that_is_asked_for(file):
    found = stored([file])
    assert list(found.select(np.array([2, 0]))) == [GROUPS[2], GROUPS[0]]
    names = {found.select(np.array(some)).fingerprint for some in ([0, 2], [2, 0], [0], [1])}
    assert len(names | {found.fingerprint}) == 5
    assert found.select(np.array([2, 0])).fingerprint in names


NAMES = st.sampled_from(
    ["a", "b", "B", "ä", "é", "z", "zz", "z\0", "a\0", "🐈", "\uffff", "10", "9"]
)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(NAMES, min_size=2, max_size=30), st.integers(0, 5), st.sampled_from([0.1, 0.3, 0.5])
)
def test_the_split_is_that_of_groups_in_memory(names, seed, test_fraction):
    groups = [
        RankedGroup(str(number), (Message("user", "Why?"),), ("a", "b"), cluster_id=name)
        for number, name in enumerate(names)
    ]
    rows = Dataset.from_list([store._row(group) for group in groups])
    assume(math.ceil(test_fraction * len(set(names))) < len(set(names)))
    options = {"test_fraction": test_fraction, "seed": seed}
    found = Stored(rows, {}, "").split(**options)
    expected = split(groups, **options)
    for part, indices in zip(found, expected, strict=True):
        assert list(part) == [groups[index] for index in indices]


def test_a_split_that_leaves_nothing_to_train_on_is_refused(file):
    # Two of the three groups share their prompt.
    for test_fraction, problem in ((0.6, "leaves none of 2 distinct groups"), (1.0, "between 0")):
        with pytest.raises(ValueError, match=problem):
            stored([file]).split(test_fraction=test_fraction, seed=0)


def test_a_split_of_what_was_split_is_that_of_its_groups(drawn):
    groups, path = drawn
    training, test = stored([path]).split(test_fraction=0.4, seed=1)
    indices, _ = split(groups, test_fraction=0.4, seed=1)
    kept = [groups[index] for index in indices]
    again, rest = training.split(test_fraction=0.3, seed=2)
    for part, indices in zip((again, rest), split(kept, test_fraction=0.3, seed=2), strict=True):
        assert list(part) == [kept[index] for index in indices]
    assert len({part.fingerprint for part in (training, test, again, rest)}) == 4
    assert training.split(test_fraction=0.3, seed=2)[0].fingerprint == again.fingerprint


@pytest.fixture
def domains(tmp_path):
    """Simulated groups of two domains by turns, with more of one of them, and their file."""
    helpfulness, safety = (
        [group.ranked for group in simulate(count, seed=5, domain=domain)]
        for count, domain in ((30, "helpfulness"), (18, "safety"))
    )
    groups = [replace(group, id=f"h{place}") for place, group in enumerate(helpfulness)]
    for place, group in enumerate(safety):
        groups.insert(2 * place, replace(group, id=f"s{place}"))
    return groups, write(tmp_path / "domains.jsonl", groups)


@pytest.mark.parametrize("batch", [7, 1000])
def test_a_mix_is_that_of_groups_in_memory(monkeypatch, domains, batch):
    monkeypatch.setattr(dataset, "ROWS_PER_BATCH", batch)
    groups, path = domains
    found = stored([path])
    assert found.domains() == {"helpfulness": 30, "safety": 18}
    for text, counts in (
        ("safety", {"safety": 18, "helpfulness": 2}),
        ("helpfulness", {"safety": 18, "helpfulness": 18}),
        ("helpfulness:1", {"helpfulness": 30}),
    ):
        shares = parse_mix(text)
        mixed = found.mixed(shares, seed=1)
        indices = mix([group.domain for group in groups], shares, seed=1)
        assert list(mixed) == [groups[index] for index in indices]
        assert mixed.domains() == counts
        assert mixed.counts == found.counts
    # Of what was split, too.
    training, _ = found.split(test_fraction=0.3, seed=0)
    kept = list(training)
    indices = mix([group.domain for group in kept], parse_mix("safety"), seed=0)
    mixed = training.mixed(parse_mix("safety"), seed=0)
    assert list(mixed) == [kept[index] for index in indices]


def test_a_mix_has_a_name_of_its_own_for_what_it_takes(domains):
    _, path = domains
    found = stored([path])
    names = [
        found.mixed(parse_mix(text), seed=seed).fingerprint
        for text, seed in (("safety", 0), ("safety", 1), ("helpfulness", 0))
    ]
    assert len({found.fingerprint, *names}) == 4
    assert found.mixed(parse_mix("safety"), seed=0).fingerprint == names[0]


def test_a_mix_of_groups_without_a_domain_is_refused_with_the_first_record(file):
    found = stored([file])
    assert found.domains() == {None: 2, "helpfulness": 1}
    problem = r"2 of 3 groups have no domain \(the first is record 'none'\).*set 'domain' in every"
    with pytest.raises(ValueError, match=problem):
        found.mixed({"helpfulness": 1.0}, seed=0)
    alone = found.select(np.array([0]))
    with pytest.raises(ValueError, match="no group has the domain 'safety' of the mix; there are:"):
        alone.mixed(parse_mix("safety"), seed=0)


def test_a_mix_reads_nothing_but_domains_and_these_once(monkeypatch, domains):
    _, path = domains
    found, _ = stored([path]).split(test_fraction=0.3, seed=0)
    asked = []
    read = Dataset.iter

    def watched(self, batch_size, **options):
        asked.append((self.column_names, batch_size))
        return read(self, batch_size, **options)

    monkeypatch.setattr(Dataset, "iter", watched)
    monkeypatch.delattr(Dataset, "__getitem__")
    found.domains()
    found.mixed(parse_mix("safety"), seed=0)
    assert asked == [(["domain"], store.ROWS_PER_BATCH)]


def test_tokenised_groups_are_counted_by_domain(domains, tokenizer):
    groups, path = domains
    made = stored([path])
    longest = max(length(tokenizer, group)[2] for group in groups)
    for limit in (longest, longest // 2):
        limits = Limits(max_row_tokens=limit, skip_too_long=True)
        # What is longer than the limit without any prompt is left out.
        kept = [group for group in groups if length(tokenizer, group)[2] < limit]
        if limit < longest:
            assert 0 < len(kept) < len(groups)
        found = tokenized(made, tokenizer, Pairing(), limits)
        by_domain = {
            name: sum(group.domain == name for group in kept) for name in ("helpfulness", "safety")
        }
        assert found.domains == by_domain
        assert sum(by_domain.values()) == found.counts["groups"]
    plain = [replace(group, domain=None) for group in groups[:5]]
    write(path, [*plain, *groups[5:8]])
    found = tokenized(stored([path]), tokenizer, Pairing(), Limits())
    assert found.domains[None] == 5
    assert sum(found.domains.values()) == found.counts["groups"] == 8


def test_groups_are_read_once(reads, file):
    first = stored([file])
    assert reads == [file]
    again = stored([file])
    assert reads == [file]
    assert again.fingerprint == first.fingerprint
    assert list(again) == list(first)


def test_a_file_that_has_changed_is_read_again(reads, file, tmp_path):
    first = stored([file])
    write(tmp_path / "mine.jsonl", [replace(GROUPS[0], strength=4), *GROUPS[1:]])
    found = stored([file])
    assert reads == [file] * 2
    assert [group.strength for group in found] == [4, None, 1]
    assert found.fingerprint != first.fingerprint
    # The first is still there, and comes back with the file.
    write(tmp_path / "mine.jsonl", GROUPS)
    assert list(stored([file])) == GROUPS
    assert reads == [file] * 2


def test_what_is_read_has_a_name_of_its_own_for_each_setting(own_cache, file):
    names = (
        [file],
        ["simulator:3"],
        ["simulator:3:1"],
        ["simulator:3", file],
        [file, "simulator:3"],
    )
    found = {
        skip_bad: [stored(sources, skip_bad=skip_bad).fingerprint for sources in names]
        for skip_bad in (False, True)
    }
    assert len(list((own_cache / "data").iterdir())) == 2 * len(names)
    # But fingerprints go by what was read.
    assert found[False] == found[True]
    assert len(set(found[False])) == len(names)


def test_equal_data_have_equal_fingerprints_wherever_they_lie(file, tmp_path):
    other = write(tmp_path / "other.jsonl", GROUPS)
    assert stored([other]).fingerprint == stored([file]).fingerprint
    assert stored(["simulator:3"]).fingerprint == stored(["simulator:3:0"]).fingerprint


@pytest.mark.parametrize("module", [store, annotators, tasks], ids=lambda module: module.__name__)
def test_groups_are_read_again_when_a_version_is_raised(monkeypatch, reads, module):
    stored(["simulator:3"])
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    stored(["simulator:3"])
    stored(["simulator:3"])
    assert len(reads) == 2


def test_versions_of_other_sources_leave_what_is_stored(monkeypatch, reads, file):
    stored([file])
    for module in (annotators, tasks, registry):
        monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    stored([file])
    assert len(reads) == 1


BAD = {"id": "bad", "prompt": "Why?", "chosen": "Same.", "rejected": "Same."}


def test_bad_records_are_errors_or_counted(file, tmp_path):
    with open(file, "a", encoding="utf-8") as opened:
        opened.write(json.dumps(BAD) + "\n{\n")
    with pytest.raises(ValueError, match=r"mine\.jsonl, line 4, .*same text"):
        stored([file])
    found = stored([file, "simulator:2"], skip_bad=True)
    assert [group.id for group in found][:3] == [group.id for group in GROUPS]
    assert (len(found.rows), found.counts) == (5, {"bad records": 2})
    assert stored([file, "simulator:2"], skip_bad=True).counts == {"bad records": 2}


def test_an_error_while_reading_leaves_nothing_in_the_cache(file, own_cache):
    with open(file, "a", encoding="utf-8") as opened:
        opened.write(json.dumps(BAD) + "\n")
    with pytest.raises(ValueError, match="same text"):
        stored([file])
    assert list((own_cache / "data").iterdir()) == []


def test_sources_without_a_record_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"simulator:0: no record is left .* left out: {}"):
        stored(["simulator:0"])
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(BAD) + "\n")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"no record is left.*{'bad records': 1}"):
            stored([str(path)], skip_bad=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"gone\.jsonl: cannot be read \(No such file"):
        stored([str(tmp_path / "gone.jsonl")])


def by_hand(groups, tokenizer, pairs, limits):
    """The training groups of all that can be tokenised within the limits."""
    found = []
    for group in groups:
        try:
            tokens = tokenize_group(tokenizer, group, limits)
        except (NoPairError, TooLongError):
            continue
        found.append(pairs.apply(group, tokens))
    return found


@pytest.mark.parametrize("weighting", ["pair", "prompt"])
@pytest.mark.parametrize(
    "options",
    [{}, {"pairs": "adjacent", "margins": "large"}, {"pairs": "rated", "min_strength": 3},
     {"margins": {1: 0.0, 2: 0.5, 3: 1.0, 4: 2.0}, "edit_margins": "none"}],
    ids=["all", "adjacent", "rated and strong", "own margins"],
)  # fmt: skip
def test_tokenised_groups_are_those_of_a_training_set_made_by_hand(
    drawn, tokenizer, options, weighting
):
    groups, path = drawn
    pairs = Pairing(**options, weighting=weighting)
    training = by_hand(groups, tokenizer, pairs, Limits())
    expected = training_set(training)
    found = tokenized(stored([path]), tokenizer, pairs, Limits())
    assert found.rows.features == FEATURES
    assert len(found.rows) == len(expected)
    for row, wanted in zip(found.rows, expected, strict=True):
        weights = [weight / found.mean_weight for weight in row["weights"]]
        assert weights == pytest.approx(wanted["weights"], rel=1e-12)
        assert row | {"weights": None} == wanted | {"weights": None}
    taken = [pair for group in training for pair in group.pairs]
    assert found.mean_weight == pytest.approx(sum(p.weight for p in taken) / len(taken), rel=1e-12)
    assert (found.mean_weight == 1) == (weighting == "pair" or options.get("pairs") == "rated")
    left_out = sum(not group.pairs for group in training)
    assert (left_out > 0) == ("min_strength" in options)
    reason = {"groups of which the pairing takes no pair": left_out} if left_out else {}
    assert found.counts == {"groups": len(expected), "pairs": len(taken)} | reason


def test_batches_of_tokenised_groups_are_those_of_a_training_set(drawn, tokenizer):
    groups, path = drawn
    pairs = Pairing(weighting="prompt", margins="small")
    expected = list(training_set(by_hand(groups, tokenizer, pairs, Limits())))
    found = tokenized(stored([path]), tokenizer, pairs, Limits())
    assert found.mean_weight < 0.9
    layout = LAYOUTS["exact"]
    batch = GroupCollator(0, layout)(expected)
    ours = GroupCollator(0, layout, mean_weight=found.mean_weight)(list(found.rows))
    assert ours.keys() == batch.keys()
    for name, tensor in batch.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-12, atol=0)
    assert ours["weights"].mean().item() == pytest.approx(1, abs=1e-12)


def length(tokenizer, group):
    tokens = tokenize_group(tokenizer, group)
    return len(tokens.prompt), max(map(len, tokens.responses)), sum(map(len, tokens.responses))


@pytest.mark.parametrize("name", ["max_tokens", "max_row_tokens"])
def test_limits_cut_prompts_and_leave_out_what_does_not_fit(drawn, tokenizer, name):
    groups, path = drawn
    needed = [length(tokenizer, group) for group in groups]
    place = 1 if name == "max_tokens" else 2
    limit = sorted(one[place] for one in needed)[len(needed) // 2]
    cut = sum(one[place] < limit < one[0] + one[place] for one in needed)
    gone = sum(one[place] >= limit for one in needed)
    assert min(cut, gone) > 3
    limits = Limits(**{name: limit}, skip_too_long=True)
    found = tokenized(stored([path]), tokenizer, Pairing(), limits)
    expected = training_set(by_hand(groups, tokenizer, Pairing(), limits))
    assert list(found.rows) == list(expected)
    assert found.counts == {
        "groups": len(expected),
        "pairs": sum(expected["pair_count"]),
        "groups that are too long": gone,
        "trimmed prompts": cut,
    }
    column = found.rows["length" if name == "max_tokens" else "total"]
    assert max(column) == limit
    # The first that is so, and how many there are.
    first = next(k for k, one in enumerate(needed) if one[place] >= limit)
    with pytest.raises(TooLongError) as raised:
        tokenized(stored([path]), tokenizer, Pairing(), Limits(**{name: limit}))
    with pytest.raises(TooLongError) as alone:
        tokenize_group(tokenizer, groups[first], Limits(**{name: limit}))
    problem = f"{path}, {alone.value.problem}; too long: {gone} of {len(groups)} records"
    assert raised.value.args == (problem, alone.value.remedy)


def group_with(name, *responses, strength=None):
    return RankedGroup(name, (Message("user", "Why?"),), responses, strength)


def test_what_is_left_out_or_dropped_is_counted_by_reason(tmp_path, tokenizer):
    # Words that the tokenizer does not know become the same token.
    groups = [
        group_with("equal", "qq", "ww", strength=4),
        group_with("edit equals rejected", "qq", "sure", "ww", strength=4),
        group_with("weak", "sure", "sorry", strength=2),
        group_with("weak with an edit", "qq", "sure", "sorry", strength=2),
        group_with("long", "sure " * 30, "sorry", strength=4),
        group_with("whole", "qq", "sure", "sorry", strength=4),
    ]
    found = tokenized(
        stored([write(tmp_path / "x.jsonl", groups)]),
        tokenizer,
        Pairing(min_strength=3),
        Limits(max_tokens=25, skip_too_long=True),
    )
    assert found.counts == {
        "groups": 3,
        "pairs": 1 + 2 + 3,
        "groups whose responses are equal in tokens": 1,
        "groups of which the pairing takes no pair": 1,
        "groups that are too long": 1,
        "dropped responses": 1,
    }
    assert found.rows["pair_count"] == [1, 2, 3]
    assert found.rows["response_count"] == [2, 3, 3]


def test_groups_without_any_pair_are_refused_with_the_reasons(tmp_path, tokenizer):
    groups = [group_with("equal", "qq", "ww"), group_with("equal too", "qq", "ww", "ee")]
    path = write(tmp_path / "x.jsonl", groups)
    with pytest.raises(ValueError, match=r"no pair to train on.*equal in tokens': 2}"):
        tokenized(stored([path]), tokenizer, Pairing(), Limits())


def test_several_processes_give_what_one_gives(monkeypatch, drawn, tokenizer):
    monkeypatch.setattr(dataset, "ROWS_PER_BATCH", 8)
    groups, path = drawn
    pairs, limits = Pairing(weighting="prompt"), Limits(max_tokens=20, skip_too_long=True)
    found = []
    for processes in (1, 2, 3):
        # In a cache of its own, so that the second does not find what the first has made.
        monkeypatch.setenv("POSTTRAIN_CACHE", f"{path}.{processes}")
        made = stored([path])
        found.append(tokenized(made, tokenizer, pairs, limits, processes=processes))
        (folder,) = {one["filename"].rpartition("/")[0] for one in made.rows.cache_files}
        files = {one["filename"] for one in found[-1].rows.cache_files}
        assert len(files) == processes
        assert all(file.startswith(folder) for file in files)
    assert {len(one.rows) for one in found} == {len(found[0].rows)}
    assert all(list(one.rows) == list(found[0].rows) for one in found)
    assert all(one.counts == found[0].counts for one in found)
    assert {one.mean_weight for one in found} == {found[0].mean_weight}
    assert 0 < found[0].counts["groups that are too long"] < len(groups)


def test_ctrl_c_is_left_to_the_main_process(monkeypatch, tokenizer):
    groups = stored(["simulator:2"])
    seen = []
    monkeypatch.setattr(dataset.signal, "signal", lambda *given: seen.append(given))
    for main in (os.getpid(), os.getpid() + 1):
        dataset._training_rows(groups.rows[:2], tokenizer, Pairing(), Limits(), main)
    assert seen == [(signal.SIGINT, signal.SIG_IGN)]


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_stay_readable_in_whatever_process_they_are_raised(
    monkeypatch, drawn, tokenizer, processes
):
    monkeypatch.setattr(dataset, "ROWS_PER_BATCH", 8)
    groups, path = drawn
    made = stored([path])
    with pytest.raises(TooLongError, match=r"record 'simulated-0000\d\d': its .* of 5 .* 40 of 40"):
        tokenized(made, tokenizer, Pairing(), Limits(max_tokens=5), processes=processes)
    unrated = [replace(group, strength=None) for group in groups]
    write(path, unrated)
    for options, problem in (
        ({"margins": "small"}, "group 'simulated-0000.*has no strength, so it has no margin"),
        ({"min_strength": 3}, "group 'simulated-0000.*has no strength, so min_strength=3 cannot"),
    ):
        with pytest.raises(ValueError, match=problem):
            tokenized(stored([path]), tokenizer, Pairing(**options), Limits(), processes=processes)
    bare = reward_model.load(tokenizer.name_or_path)[1]
    bare.chat_template = None
    with pytest.raises(ValueError, match="has no chat template; give"):
        tokenized(stored([path]), bare, Pairing(), Limits(), processes=processes)


@pytest.fixture
def tokenisations(monkeypatch):
    """The ids of the groups that are tokenised, in the order in which that happens."""
    seen = []

    def watched(tokenizer, group, limits):
        seen.append(group.id)
        return tokenize_group(tokenizer, group, limits)

    monkeypatch.setattr(dataset, "tokenize_group", watched)
    return seen


def test_groups_are_tokenised_once(drawn, tokenizer, tokenisations):
    groups, path = drawn
    arguments = (tokenizer, Pairing(), Limits())
    first = tokenized(stored([path]), *arguments)
    assert tokenisations == [group.id for group in groups]
    again = tokenized(stored([path]), *arguments)
    assert len(tokenisations) == len(groups)
    assert list(again.rows) == list(first.rows)
    assert (again.counts, again.mean_weight) == (first.counts, first.mean_weight)
    # Each side of a split is a set of its own.
    for part in stored([path]).split(test_fraction=0.3, seed=0):
        assert list(tokenized(part, *arguments).rows) == list(
            training_set(by_hand(part, *arguments))
        )
    assert len(tokenisations) == 2 * len(groups)


def test_what_is_tokenised_has_a_name_of_its_own_for_each_setting(drawn, tokenizer, tokenisations):
    groups, path = drawn
    other = reward_model.load(tokenizer.name_or_path)[1]
    other.chat_template = other.chat_template.replace("<|end|>", "")
    # A template may leave it to the tokenizer how a turn ends.
    ended, ended_otherwise = (reward_model.load(tokenizer.name_or_path)[1] for _ in range(2))
    for one in (ended, ended_otherwise):
        one.chat_template = one.chat_template.replace("<|end|>", "{{ eos_token }}")
    ended_otherwise.eos_token = "<|user|>"
    more = reward_model.load(tokenizer.name_or_path)[1]
    more.add_tokens(["qq"])
    settings = [
        (tokenizer, Pairing(), Limits()),
        (other, Pairing(), Limits()),
        (ended, Pairing(), Limits()),
        (ended_otherwise, Pairing(), Limits()),
        (more, Pairing(), Limits()),
        (tokenizer, Pairing("rated"), Limits()),
        (tokenizer, Pairing(weighting="prompt"), Limits()),
        (tokenizer, Pairing(margins="small"), Limits()),
        (tokenizer, Pairing(margins="small", edit_margins="none"), Limits()),
        (tokenizer, Pairing(margins={1: 1.0, 2: 1.0, 3: 1.0, 4: 1.0}), Limits()),
        (tokenizer, Pairing(min_strength=2), Limits()),
        (tokenizer, Pairing(), Limits(max_tokens=90)),
        (tokenizer, Pairing(), Limits(max_row_tokens=90)),
    ]
    for number, arguments in enumerate(settings, start=1):
        tokenized(stored([path]), *arguments)
        assert len(tokenisations) == number * len(groups)


def test_what_was_tokenised_serves_a_run_that_leaves_out_what_is_too_long(
    drawn, tokenizer, tokenisations
):
    groups, path = drawn
    limits = Limits(max_tokens=20)
    with pytest.raises(TooLongError):
        tokenized(stored([path]), tokenizer, Pairing(), limits)
    # All, and for the message the first that is too long.
    assert len(tokenisations) == len(groups) + 1
    tokenized(stored([path]), tokenizer, Pairing(), replace(limits, skip_too_long=True))
    assert len(tokenisations) == len(groups) + 1


def test_groups_are_tokenised_again_when_the_version_or_a_library_is_another(
    monkeypatch, tokenizer, tokenisations
):
    def count():
        tokenized(stored(["simulator:3"]), tokenizer, Pairing(), Limits())
        return len(tokenisations)

    assert (count(), count()) == (3, 3)
    monkeypatch.setattr(dataset, "VERSION", dataset.VERSION + 1)
    assert (count(), count()) == (6, 6)
    version = cache.metadata.version
    monkeypatch.setattr(
        cache.metadata,
        "version",
        lambda library: "another" if library == "tokenizers" else version(library),
    )
    assert (count(), count()) == (9, 9)


def test_a_row_is_a_group(drawn):
    groups, _ = drawn
    for group in [*GROUPS, *groups]:
        assert group_of(store._row(group)) == group


def test_what_is_stored_can_be_read_from_a_file(file, tmp_path):
    assert list(stored([file])) == read_groups(file).groups


def test_quiet_shows_no_progress_bars():
    shown = not datasets.are_progress_bars_disabled()
    datasets.enable_progress_bars()
    try:
        store.quiet()
        assert datasets.are_progress_bars_disabled()
    finally:
        if shown:
            datasets.enable_progress_bars()


def test_margins_of_records_that_have_no_say_are_counted(tmp_path, tokenizer, caplog):
    path = tmp_path / "margins.jsonl"
    drawn = [group.ranked for group in simulate(12, seed=4)]
    margins = [None, 0.0, 0.5, -1.0] * 3
    both = zip(drawn, margins, strict=True)
    write_groups(path, [replace(group, margin=margin) for group, margin in both])
    found = tokenized(stored([str(path)]), tokenizer, Pairing(), Limits())
    assert [row["margins"] for row in found.rows] == [[margin or 0.0] for margin in margins]
    assert found.counts == {"groups": 12, "pairs": 12}
    assert "no say" not in caplog.text
    found = tokenized(stored([str(path)]), tokenizer, Pairing(margins="small"), Limits())
    assert found.counts == {"groups": 12, "pairs": 12, "margins of records that have no say": 6}
    assert "margins of 6 records have no say, because margins are 'small'" in caplog.text


def test_what_a_template_leaves_out_is_counted_and_said(tmp_path, tokenizer, caplog):
    path = tmp_path / "system.jsonl"
    drawn = [group.ranked for group in simulate(6, seed=4, edited_share=1.0)]
    system = (Message("system", "Be brief."),)
    write_groups(path, [replace(group, prompt=system + group.prompt) for group in drawn])
    bare = reward_model.load(tokenizer.name_or_path)[1]
    bare.chat_template = (
        "{% for m in messages if m.role != 'system' %}<|{{ m.role }}|> {{ m.content }} <|end|> "
        "{% endfor %}{% if add_generation_prompt %}<|assistant|> {% endif %}"
    )
    found = tokenized(stored([str(path)]), bare, Pairing(), Limits())
    what = "system messages that the chat template leaves out or rewrites"
    assert found.counts == {"groups": 6, "pairs": 16, what: 6}
    assert f"the model does not read all of the texts: 6 {what}" in caplog.text
    # Also where all comes from the cache.
    caplog.clear()
    assert tokenized(stored([str(path)]), bare, Pairing(), Limits()).counts == found.counts
    assert f"6 {what}" in caplog.text
