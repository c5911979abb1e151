"""Sources by name: each kind gives its groups, and an identity that changes when they do."""

import gzip
import hashlib
import json
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import datasets
import pytest
from ukp_original import write_original

from posttrain.data.preferences import to_record
from posttrain.data.reading import iterate_groups, write_groups
from posttrain.data.sources import human, named
from posttrain.data.sources.hub import read, registry
from posttrain.data.sources.named import identity, iterate
from posttrain.data.sources.originals.registry import ORIGINALS
from posttrain.data.sources.simulator.annotators import simulate

TRL = "trl-lib/ultrafeedback_binarized"
HH = "Anthropic/hh-rlhf"
RECORD = {"id": "one", "prompt": "Why?", "chosen": "Because.", "rejected": "No.", "strength": 2}
BAD = RECORD | {"id": "bad", "strength": 9}

datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path_factory):
    """No human data of the user's, and nothing written into the user's cache."""
    monkeypatch.delenv(human.VARIABLE, raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(path, *records):
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return str(path)


def changed(number):
    return RECORD | {"id": "two", "strength": number}


@pytest.mark.parametrize(
    ("name", "count", "seed"),
    [
        ("simulator:0", 0, 0),
        ("simulator:7", 7, 0),
        ("simulator:7:0", 7, 0),
        ("simulator:5:12", 5, 12),
    ],
)
def test_simulated_groups_are_those_of_the_simulator(name, count, seed):
    drawn = [group.ranked for group in simulate(count, seed=seed)]
    named = [replace(group, id=group.id[-6:], cluster_id="") for group in iterate(name)]
    assert named == [replace(group, id=group.id[-6:], cluster_id="") for group in drawn]
    assert identity(name)["source"] == name


def test_simulated_groups_come_one_after_the_other():
    # As many as this would take minutes and all memory.
    groups = iterate("simulator:1000000000")
    assert [next(groups).id for _ in range(2)] == [
        "simulated-helpfulness-0-000000",
        "simulated-helpfulness-0-000001",
    ]


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.jsonl.gz", "MINE.JSONL", "mine.parquet"])
def test_a_file_gives_its_groups(tmp_path, name):
    path = tmp_path / name
    groups = [group.ranked for group in simulate(6, seed=1, edited_share=0.5)]
    write_groups(path, groups)
    counts = Counter()
    assert list(iterate(str(path), counts=counts)) == groups == list(iterate_groups(path))
    assert counts == {}


def test_a_file_has_the_identity_of_its_bytes(tmp_path):
    first = write(tmp_path / "a.jsonl", RECORD)
    before = identity(first)
    content = (tmp_path / "a.jsonl").read_bytes()
    assert before == {"source": first, "sha256": hashlib.sha256(content).hexdigest()}
    (tmp_path / "a.jsonl").touch()
    assert identity(write(tmp_path / "a.jsonl", RECORD)) == before
    assert identity(write(tmp_path / "b.jsonl", RECORD))["sha256"] == before["sha256"]
    others = [identity(write(tmp_path / "a.jsonl", RECORD, changed(n))) for n in (1, 2)]
    assert len({one["sha256"] for one in (before, *others)}) == 3


def test_bad_records_of_a_file_are_errors_or_counted(tmp_path):
    path = write(tmp_path / "mine.jsonl", RECORD, BAD, changed(3), {"id": "none"})
    groups = iterate(path)
    assert next(groups).id == "one"
    with pytest.raises(ValueError, match=r"mine\.jsonl, line 2, field 'strength'"):
        next(groups)
    counts = Counter(others=1)
    assert [group.id for group in iterate(path, counts=counts, skip_bad=True)] == ["one", "two"]
    assert counts == {"others": 1, "bad records": 2}


def test_a_file_that_cannot_be_read_to_its_end_is_an_error_even_so(tmp_path):
    path = tmp_path / "mine.jsonl.gz"
    write(path, *(changed(3) | {"id": str(number)} for number in range(200)))
    path.write_bytes(path.read_bytes()[:-20])
    counts = Counter()
    with pytest.raises(ValueError, match=r"mine\.jsonl\.gz: the gzip data end early"):
        list(iterate(str(path), counts=counts, skip_bad=True))
    assert counts == {}


@pytest.mark.parametrize("ask", [identity, lambda source: list(iterate(source, skip_bad=True))])
def test_a_missing_file_is_named(tmp_path, ask):
    with pytest.raises(ValueError, match=r"gone\.jsonl: cannot be read \(No such file"):
        ask(str(tmp_path / "gone.jsonl"))


@pytest.fixture
def asked(monkeypatch):
    """How the hub was asked for data."""
    seen = []

    def fake(name, **options):
        seen.append(
            (
                name,
                {key: value for key, value in options.items() if key in PLAIN},
            )
        )
        options["dropped"]["some"] += 1
        return iter(["a group", "another"])

    monkeypatch.setattr(read, "iterate", fake)
    return seen


PLAIN = {"subset": None, "split": "train", "path": None, "revision": None, "skip_bad": False}


@pytest.mark.parametrize(
    ("source", "name", "options"),
    [
        (TRL, TRL, {}),
        (HH, HH, {}),
        (f"{HH}/helpful-base", HH, {"subset": "helpful-base"}),
        (f"{TRL}:test", TRL, {"split": "test"}),
        (f"{TRL}@1a2b3c", TRL, {"revision": "1a2b3c"}),
        (f"{HH}/helpful-base@1a2b3c:test", HH,
         {"subset": "helpful-base", "revision": "1a2b3c", "split": "test"}),
        ("a.b/c_d-e.f/g_h.i:validation_1.0", "a.b/c_d-e.f",
         {"subset": "g_h.i", "split": "validation_1.0"}),
        ("a/b@refs/convert/parquet", "a/b", {"revision": "refs/convert/parquet"}),
    ],
)  # fmt: skip
def test_names_of_the_hub_say_subset_commit_and_split(asked, source, name, options):
    for skip_bad in (False, True):
        counts = Counter()
        found = list(iterate(source, counts=counts, skip_bad=skip_bad))
        assert found == ["a group", "another"]
        assert counts == {"some": 1}
        assert asked.pop() == (name, PLAIN | options | {"skip_bad": skip_bad})
    assert asked == []


@pytest.mark.parametrize("form", ["absolute", "./local", "local"])
def test_a_folder_with_the_files_takes_the_place_of_the_hub(monkeypatch, tmp_path, asked, form):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "local").mkdir()
    folder = str(tmp_path / "local") if form == "absolute" else form
    list(iterate(f"{HH}/helpful-base@{folder}:test"))
    options = {"subset": "helpful-base", "path": folder, "split": "test"}
    assert asked == [(HH, PLAIN | options)]


def hh(chosen):
    transcripts = {"chosen": chosen, "rejected": "No."}
    return {key: f"\n\nHuman: Why?\n\nAssistant: {value}" for key, value in transcripts.items()}


def test_a_folder_is_read_as_the_hub_would_be(tmp_path):
    write(tmp_path / "harmless-base" / "test.jsonl.gz", hh("Because."), hh("No."), hh("So."))
    counts = Counter()
    groups = list(iterate(f"{HH}/harmless-base@{tmp_path}:test", counts=counts))
    assert [(group.id, group.chosen, group.domain) for group in groups] == [
        ("Anthropic/hh-rlhf/harmless-base/test-0", "Because.", "safety"),
        ("Anthropic/hh-rlhf/harmless-base/test-2", "So.", "safety"),
    ]
    assert counts == {"identical responses": 1}


def test_a_folder_in_the_projects_own_format_is_read(tmp_path):
    groups = [group.ranked for group in simulate(5, seed=2)]
    write(tmp_path / "train.jsonl", *(to_record(group, as_messages=True) for group in groups))
    found = list(iterate(f"me/mine@{tmp_path}"))
    assert [group.responses for group in found] == [group.responses for group in groups]
    assert [group.prompt for group in found] == [group.prompt for group in groups]


def test_a_folder_has_the_identity_of_its_files_wherever_it_lies(tmp_path):
    def at(folder, *records, name="train.jsonl"):
        write(tmp_path / folder / "data" / name, *records)
        return identity(f"{TRL}@{tmp_path / folder}:test")

    found = at("here", RECORD)
    assert found == at("there", RECORD)
    assert found["source"] == f"{TRL}:test"
    assert list(found["files"]) == ["data/train.jsonl"]
    others = [
        at("here", RECORD, changed(1)),
        at("more", RECORD) and at("more", changed(1), name="test.jsonl"),
        at("renamed", RECORD, name="other.jsonl"),
        identity(f"{TRL}@{tmp_path / 'there'}"),
        identity(f"{TRL}/subset@{tmp_path / 'there'}:test"),
    ]
    assert len({json.dumps(one) for one in (found, *others)}) == 6


@pytest.fixture
def newest(monkeypatch):
    """The newest commits of data sets on the hub."""
    commits = {TRL: "new"}
    monkeypatch.setattr(named, "dataset_info", lambda name: SimpleNamespace(sha=commits[name]))
    return commits


def test_data_on_the_hub_have_the_identity_of_their_commit(newest):
    assert (identity(TRL)["source"], identity(TRL)["revision"]) == (TRL, "new")
    newest[TRL] = "newer"
    assert identity(f"{TRL}:test")["revision"] == "newer"
    assert identity(f"{TRL}@0123abc")["revision"] == "0123abc"


def test_data_on_the_hub_have_another_identity_when_converters_change(
    newest, monkeypatch, tmp_path
):
    names = [TRL, f"{TRL}@{tmp_path}"]
    before = [identity(name) for name in names]
    monkeypatch.setattr(registry, "VERSION", registry.VERSION + 1)
    assert all(identity(name) != old for name, old in zip(names, before, strict=True))


def test_data_with_a_converter_are_read_at_its_commit(monkeypatch):
    monkeypatch.setattr(named, "dataset_info", lambda name: pytest.fail("no need to ask"))
    for name, source in read.HUB.items():
        assert source.revision
        assert identity(name)["revision"] == source.revision
    assert identity(f"{HH}@fedc987")["revision"] == "fedc987"


def test_a_hub_that_does_not_answer_is_explained(monkeypatch):
    def fail(name):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(named, "dataset_info", fail)
    with pytest.raises(
        ValueError,
        match=f"newest commit of {TRL} in vain .ConnectionError.; check name and network, or name "
        f"a commit or a folder: {TRL}@COMMIT, {TRL}@FOLDER",
    ):
        identity(TRL)


@pytest.fixture
def base(monkeypatch, tmp_path):
    monkeypatch.setenv(human.VARIABLE, str(tmp_path))
    return tmp_path


def test_human_data_come_from_their_folder(base):
    write_original(base)
    counts = Counter()
    groups = list(iterate("ukpconvarg", counts=counts))
    assert groups == human.load("ukpconvarg")[0]
    assert [group.chosen for group in groups] == ["Original."]
    assert counts == {"tied votes": 1}
    assert identity("ukpconvarg") == {"source": "ukpconvarg"} | human.load("ukpconvarg")[1]


def test_human_data_have_the_identity_of_their_groups(base):
    write(base / "mine.jsonl", RECORD)
    first = identity("mine")
    write(base / "mine.jsonl", RECORD | {"ignored": 1})
    assert identity("mine") == first
    write(base / "mine.jsonl", RECORD, changed(3))
    assert identity("mine") != first
    assert [group.id for group in iterate("mine")] == ["one", "two"]


def test_identities_are_json(base, tmp_path, newest):
    write_original(base)
    (tmp_path / "folder").mkdir()
    path = write(tmp_path / "folder" / "mine.jsonl", RECORD)
    for source in ("simulator:3", path, TRL, f"{TRL}@{tmp_path / 'folder'}", "ukpconvarg"):
        found = identity(source)
        assert json.loads(json.dumps(found)) == found


ASKS = [identity, lambda source: list(iterate(source))]


@pytest.mark.parametrize("ask", ASKS, ids=["identity", "groups"])
@pytest.mark.parametrize(
    "source",
    ["nothing", "mine.txt", "simulater:20", "simulator", "simulator:", "simulator:many",
     "simulator:-3", "simulator:3:x", "./data/mine.txt", "../data/mine", "/data/mine", "a/b/c/d",
     "a/b:", "a/b@", "", "mine.jsonl ", "https://example.org/mine.jsonl?raw"],
)  # fmt: skip
@pytest.mark.parametrize("there", [True, False], ids=["human data", "no human data"])
def test_unknown_sources_are_refused_with_what_there_is(monkeypatch, tmp_path, ask, source, there):
    if there:
        monkeypatch.setenv(human.VARIABLE, str(tmp_path))
    monkeypatch.setattr(read, "iterate", lambda *_, **__: pytest.fail("no name of the hub"))
    monkeypatch.setattr(named, "dataset_info", lambda _: pytest.fail("no name of the hub"))
    with pytest.raises(ValueError, match="unknown source") as refused:
        ask(source)
    shown = str(refused.value)
    assert repr(source) in shown
    for kind in (".jsonl", ".parquet", "owner/name", "simulator:COUNT", "seeda", human.VARIABLE):
        assert kind in shown


@pytest.mark.parametrize("ask", ASKS, ids=["identity", "groups"])
def test_human_data_that_are_missing_are_no_unknown_source(ask):
    for name in ORIGINALS:
        with pytest.raises(ValueError, match=r"^POSTTRAIN_DATA is not set"):
            ask(name)


@pytest.mark.parametrize("ask", ASKS, ids=["identity", "groups"])
def test_human_data_with_a_bad_record_are_no_unknown_source(base, ask):
    write(base / "mine.jsonl", RECORD, BAD)
    with pytest.raises(ValueError, match=r"mine\.jsonl, line 2, field 'strength'") as refused:
        ask("mine")
    assert "unknown source" not in str(refused.value)


@pytest.mark.parametrize("at", ["main", "./gone", "v1.0", "folder/of/mine"])
def test_what_is_neither_a_commit_nor_a_folder_has_no_identity(at):
    with pytest.raises(ValueError, match="neither a folder that exists nor a commit"):
        named.identity(f"owner/name@{at}")
