"""A server of files on this machine, in the place of a data set's publisher."""

import io
import re
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


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


@dataclass
class Behavior:
    """What a server of parts of files does, and what it was asked."""

    #: Requests of files with this suffix that fail with 503, before one is answered.
    failures: int = 0
    suffix: str = '.tif'
    #: Seconds before each answer.
    delay: float = 0.0
    #: Requests that are answered with a token before it expires, by token.
    tokens: dict[str, int] | None = None
    #: Path and bytes of each request that was answered.
    answered: list[tuple[str, int]] = field(default_factory=list)


@contextmanager
def served_parts(folder: Path, behavior: Behavior) -> Iterator[str]:
    """Serve a folder as buckets do, with requests for parts of files."""

    class Handler(QuietHandler):
        def copyfile(self, source: Any, outputfile: Any) -> None:
            # GDAL reads the size of a file, and no more
            with suppress(ConnectionError):
                super().copyfile(source, outputfile)

        def send_head(self) -> io.BytesIO | None:
            time.sleep(behavior.delay)
            path, _, token = self.path.partition('?token=')
            if path.endswith(behavior.suffix) and behavior.failures:
                behavior.failures -= 1
                self.send_error(503)
                return None
            if behavior.tokens is not None and path.endswith(behavior.suffix):
                if not behavior.tokens.get(token):
                    self.send_error(403)
                    return None
                behavior.tokens[token] -= 1
            file = Path(self.translate_path(path))
            if not file.is_file():
                self.send_error(404)
                return None
            content = file.read_bytes()
            wanted = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range', ''))
            first = int(wanted[1]) if wanted else 0
            last = int(wanted[2]) if wanted and wanted[2] else len(content) - 1
            part = content[first : last + 1]
            self.send_response(206 if wanted else 200)
            self.send_header('Content-Length', str(len(part)))
            self.send_header('Accept-Ranges', 'bytes')
            if wanted:
                whole = f'bytes {first}-{first + len(part) - 1}/{len(content)}'
                self.send_header('Content-Range', whole)
            self.end_headers()
            behavior.answered.append((path, len(part)))
            return io.BytesIO(part)

    handler = partial(Handler, directory=str(folder))
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
