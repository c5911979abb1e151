"""The folder of human data as a user of UKPConvArg1 has it, with the untouched original."""


def write_original(base):
    """Write UKPConvArg1 with one usable pair and one tie into a folder of human data."""
    pairs = "".join(
        "<annotatedArgumentPair><id>x</id>"
        "<arg1><stance>Cats</stance><text>Original.</text></arg1>"
        "<arg2><stance>Cats</stance><text>Dogs.</text></arg2>"
        "<debateMetaData><title>Cats or dogs?</title></debateMetaData><mTurkAssignments>"
        + "".join(f"<mTurkAssignment><value>{v}</value></mTurkAssignment>" for v in votes)
        + "</mTurkAssignments></annotatedArgumentPair>"
        for votes in (("a1", "a1", "a2"), ("a1", "a2"))
    )
    folder = base / "raw" / "UKPConvArg1-full-XML"
    folder.mkdir(parents=True)
    (folder / "cats.xml").write_text(f"<list>{pairs}</list>", encoding="utf-8")
