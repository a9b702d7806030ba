"""A server of files on this machine, in the place of a data set's publisher."""

import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder; give the address it has."""
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


def pack(archive: Path, made: Path, part: str = '.') -> Path:
    """Pack a folder or file below *made* into a zip or tar, as its suffix says."""
    files = [made / part] if (made / part).is_file() else (made / part).rglob('*')
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == '.zip':
        with zipfile.ZipFile(archive, 'w') as content:
            for file in files:
                content.write(file, file.relative_to(made))
    else:
        with tarfile.open(archive, 'w') as tar:
            for file in files:
                tar.add(file, file.relative_to(made), recursive=False)
    return archive
