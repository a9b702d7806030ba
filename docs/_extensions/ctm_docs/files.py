"""Write generated pages, and nothing that has not changed."""

from collections.abc import Mapping
from pathlib import Path


def replace_folder(folder: Path, pages: Mapping[str, str]) -> None:
    """Make a folder hold these pages and no others.

    Args:
        folder: The folder; created if missing.
        pages: Text by file name. A page that is the same is left alone, so that Sphinx
            does not read it anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding='utf-8') != text:
            path.write_text(text, encoding='utf-8')


def title(text: str, line: str = '=') -> str:
    """Return a title in reStructuredText."""
    return f'{text}\n{line * len(text)}\n'


def indented(text: str, by: int = 3) -> str:
    """Indent every line that is not empty."""
    return '\n'.join(' ' * by + row if row.strip() else '' for row in text.split('\n'))
