"""Checks built pages: ``python -m posttrain.notebooks.links _build/html``.

Every link, image, style sheet and script that a page names must be a file, and what stands behind
``#`` an anchor in it. Addresses of the web are not looked up here; ``make links`` does.
"""

import sys
from collections.abc import Iterator, Sequence
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page, and what it links to or loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.targets: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for every tag."""
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value:
                self.targets.add(value)


def broken(folder: Path) -> Iterator[str]:
    """What is broken, in words, page by page."""
    files = [path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts]
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in files}
    for path, page in pages.items():
        for target in sorted(page.targets):
            address = urlsplit(target)
            if address.scheme or address.netloc:
                continue
            file = (path.parent / unquote(address.path)).resolve() if address.path else path
            where = f"{path.relative_to(folder.resolve())}: {target}"
            if not file.is_file():
                yield f"{where}: no such file"
            elif file in pages and unquote(address.fragment) not in pages[file].anchors:
                yield f"{where}: no such anchor"


def main(arguments: Sequence[str]) -> int:
    """Print what is broken in the folder that is the only argument; return 1 if anything is."""
    (folder,) = map(Path, arguments)
    if not any(folder.rglob("*.html")):
        print(f"error: {folder} holds no pages; build the book first (make book)", file=sys.stderr)
        return 1
    problems = [*broken(folder)]
    print(*problems, sep="\n", end="\n" if problems else "")
    print(f"{folder}: {len(problems)} broken links")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
