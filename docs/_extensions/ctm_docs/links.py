"""Check the links inside a built site: every file is there, and every anchor.

    python docs/_extensions/ctm_docs/links.py docs/_build/html

Links to other sites are counted, not followed.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

#: What holds an address, by the name of its attribute.
ADDRESSES = ('href', 'src')


class Page(HTMLParser):
    """The anchors of a page, and the addresses that it names."""

    def __init__(self) -> None:
        """Start with an empty page."""
        super().__init__()
        self.anchors: set[str] = set()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what the attributes name."""
        for name, value in attrs:
            if value is None:
                continue
            if name == 'id' or (tag == 'a' and name == 'name'):
                self.anchors.add(value)
            elif name in ADDRESSES:
                self.addresses.append(value)


class Report(NamedTuple):
    """What was found in a site."""

    pages: int
    inside: int
    outside: int
    broken: list[str]


def check_site(site: Path) -> Report:
    """Follow every link inside a site.

    Args:
        site: Folder of the built HTML.
    """
    site = site.resolve()
    # a theme's own files may be templates
    files = sorted(set(site.rglob('*.html')) - set(site.rglob('_static/**/*.html')))
    pages = {path: _read(path) for path in files}
    inside, outside, broken = 0, 0, []
    for path, page in pages.items():
        for address in page.addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                outside += 1
                continue
            inside += 1
            why = _broken(path, parts.path, parts.fragment, pages)
            if why:
                broken.append(f'{path.relative_to(site)}: {address} {why}')
    return Report(len(pages), inside, outside, broken)


def _read(path: Path) -> Page:
    page = Page()
    page.feed(path.read_text(encoding='utf-8'))
    return page


def _broken(
    path: Path, address: str, fragment: str, pages: dict[Path, Page]
) -> str | None:
    """Return what is wrong with a link, None if nothing is."""
    target = (path.parent / unquote(address)).resolve() if address else path
    if target.is_dir():
        target /= 'index.html'
    if not target.exists():
        return 'is not there'
    anchor = unquote(fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return 'has no such anchor'
    return None


def main() -> None:
    """Check the site that is named, and exit with 1 if a link is broken."""
    if len(sys.argv) != 2 or not Path(sys.argv[1], 'index.html').is_file():
        sys.stderr.write('Expected the folder of a built site, with its index.html.\n')
        raise SystemExit(2)
    report = check_site(Path(sys.argv[1]))
    for line in report.broken:
        sys.stderr.write(f'{line}\n')
    sys.stdout.write(
        f'{report.pages} pages, {report.inside} links inside, {len(report.broken)} '
        f'broken; {report.outside} links outside, not followed\n'
    )
    raise SystemExit(1 if report.broken else 0)


if __name__ == '__main__':
    main()
