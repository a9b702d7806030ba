"""Scenes are found in static catalogs and through an API."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from PIL import Image

from tests.commands import Run, refused
from tests.fakes.serve import Behavior, served_parts
from tests.fakes.stac import make_item, write_catalog
from torchgeo_ctm.catalog import lines, search
from torchgeo_ctm.errors import CTMError, CTMWarning

pytest.importorskip('pystac_client')

#: Around the corner of the scenes.
BOX = ('10.2725', '45.1445', '10.2745', '45.146')
OPTIONS = ('--bbox', *BOX, '--date', '2026-06/2026-07', '--catalog')
FAR = 200_000.0
#: Name, date, cloud cover, meters east.
SCENES = [
    ('B', '2026-07-31T23:30:00Z', 12.0, 0.0),
    ('A', '2026-06-01T10:00:00Z', 80.0, 0.0),
    ('C', '2026-06-20T10:00:00.5+00:00', None, 500.0 - 1500.0),
    ('too-late', '2026-08-01T00:00:00Z', 1.0, 0.0),
    ('too-early', '2026-05-31T23:59:59Z', 1.0, 0.0),
    ('elsewhere', '2026-06-02T10:00:00Z', 1.0, FAR),
]


def items() -> list[dict[str, Any]]:
    found = []
    for name, date, cloud, shift in SCENES:
        facts: dict[str, Any] = {'datetime': date, 'grid:code': 'MGRS-32TNR'}
        if cloud is not None:
            facts['eo:cloud_cover'] = cloud
        hrefs = {'B02': './B02.tif', 'B8A': 'https://host/B8A.tif'}
        found.append(make_item(name, hrefs, facts, shift=shift))
    return found


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(tmp_path / 'stac', items())


def test_a_static_catalog_is_searched(catalog: Path, run: Run, tmp_path: Path) -> None:
    output = tmp_path / 'scenes.json'
    status, out, err = run('search', *OPTIONS, catalog, '--output', output)
    assert status == 0, err
    assert out.splitlines() == [
        'date        cloud  tile   id',
        '2026-06-01   80 %  32TNR  A',
        '2026-06-20      -  32TNR  C',
        '2026-07-31   12 %  32TNR  B',
        str(output),
        str(output.with_suffix('.png')),
    ]
    content = json.loads(output.read_text())
    assert content['type'] == 'FeatureCollection'
    assert [item['id'] for item in content['features']] == ['A', 'C', 'B']
    assets = content['features'][0]['assets']
    assert assets['blue']['href'] == str(catalog.parent / 'sentinel-2-l2a/A/B02.tif')
    assert assets['nir08']['href'] == 'https://host/B8A.tif'
    with Image.open(output.with_suffix('.png')) as picture:
        assert picture.size > (500, 500)


def test_of_clouds_and_limits(catalog: Path) -> None:
    box, date = [float(edge) for edge in BOX], '2026-06/2026-07'
    found = search(str(catalog), box, date, max_cloud=20)
    assert [item.id for item in found] == ['C', 'B']
    # a folder is its catalog.json
    with pytest.warns(CTMWarning, match='3 scenes match, the first 1 are kept'):
        found = search(str(catalog.parent), box, date, limit=1)
    assert lines(found)[1].endswith('A')
    one_day = search(str(catalog), box, '2026-07-31')
    assert [item.id for item in one_day] == ['B']


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'date': '2020'}, ['No scene of', 'matches', 'Widen']),
        ({'bbox': '20,45,21,46'}, ['No scene of', 'matches']),
        ({'max_cloud': '5', 'date': '2026-07'}, ['1 scenes match', '--max_cloud 12']),
        ({'collection': 'sentinel-2'}, ['no collection', "'sentinel-2-l2a'?"]),
        ({'date': 'June'}, ["Invalid date 'June'", '2026-06/2026-07']),
        ({'date': '2026-07/2026-06'}, ['EARLIER/LATER']),
        ({'bbox': '20,45,21'}, ['Invalid bbox', 'WEST,SOUTH,EAST,NORTH']),
        ({'limit': '0'}, ['--limit 0 is too small']),
        ({'catalog': 'nothing.json'}, ['Cannot search nothing.json']),
        ({'catalog': 'http://127.0.0.1:9/'}, ['Cannot search http://127.0.0.1:9/']),
        ({'catalog': 'item.json'}, ['item.json is no catalog', 'predict takes items']),
        ({'output': 'scenes.gpkg'}, ["Did you mean 'scenes.json'?"]),
    ],
)
def test_searches_that_find_nothing(
    catalog: Path,
    run: Run,
    tmp_path: Path,
    changes: dict[str, str],
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'item.json').write_text('{"type": "Feature"}')
    options = {'bbox': ','.join(BOX), 'date': '2026-06/2026-07', 'catalog': catalog}
    given = options | {'output': 'scenes.json'} | changes
    arguments = [each for k, v in given.items() for each in (f'--{k}', v)]
    refused(run('search', *arguments), *words)
    assert not [*tmp_path.glob('scenes*')]


def test_a_catalog_on_a_server_that_fails_at_times(catalog: Path) -> None:
    behavior = Behavior(failures=2, suffix='item.json')
    with served_parts(catalog.parent, behavior) as url:
        found = search(f'{url}/catalog.json', BOX, '2026-06/2026-07')
    assert [item.id for item in found] == ['A', 'C', 'B']
    assert found[0].assets['blue'].href == f'{url}/sentinel-2-l2a/A/B02.tif'
    assert behavior.failures == 0


@pytest.fixture
def api() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve a STAC API, whose search returns all items that are not far, in two pages."""
    asked: list[dict[str, Any]] = []
    near = [item | {'links': []} for item in items() if item['id'] in 'ABC']

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def answer(self, content: dict[str, Any]) -> None:
            text = json.dumps(content).encode()
            self.send_response(200)
            self.send_header('Content-Length', str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == '/search':
                self.page(int(parse_qs(parts.query)['page'][0]))
                return
            found = f'{self.headers["Host"]}'
            core = 'https://api.stacspec.org/v1.0.0/'
            self.answer(
                {
                    'type': 'Catalog',
                    'stac_version': '1.0.0',
                    'id': 'api',
                    'description': 'An API',
                    'conformsTo': [f'{core}core', f'{core}item-search'],
                    'links': [
                        {
                            'rel': 'search',
                            'href': f'http://{found}/search',
                            'type': 'application/geo+json',
                            'method': 'POST',
                        }
                    ],
                }
            )

        def do_POST(self) -> None:
            length = int(self.headers['Content-Length'])
            asked.append(json.loads(self.rfile.read(length)))
            self.page(0)

        def page(self, number: int) -> None:
            href = f'http://{self.headers["Host"]}/search?page=1'
            links = [{'rel': 'next', 'href': href, 'method': 'GET'}]
            features = near[2 * number : 2 * number + 2]
            self.answer(
                {
                    'type': 'FeatureCollection',
                    'features': features,
                    'links': [] if number else links,
                }
            )

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/', asked
        server.shutdown()


def test_an_api_is_asked(api: tuple[str, list[dict[str, Any]]]) -> None:
    url, asked = api
    found = search(url, BOX, '2026-06/2026-07', max_cloud=20)
    assert [item.id for item in found] == ['C', 'B']
    [request] = asked
    assert request['bbox'] == [float(edge) for edge in BOX]
    assert request['datetime'] == '2026-06-01T00:00:00Z/2026-07-31T23:59:59Z'
    assert request['collections'] == ['sentinel-2-l2a']


@contextmanager
def answering(status: int, body: bytes, delay: float = 0) -> Iterator[str]:
    """Serve one answer to everything."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            time.sleep(delay)
            self.send_response(status)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(body)

    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f'127.0.0.1:{server.server_port}'
        server.shutdown()


UNVERIFIED = requests.exceptions.SSLError(
    "HTTPSConnectionPool(host='x', port=443): Max retries exceeded with url: / (Caused by "
    "SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate "
    "verify failed: self-signed certificate (_ssl.c:1006)')))"
)


@pytest.mark.parametrize('command', ['search', 'predict'])
@pytest.mark.parametrize(
    ('answer', 'expected'),
    [
        ((400, b'no'), '{host} answers HTTP 400. The server refuses the request.'),
        ((401, b'no'), '{host} answers HTTP 401. It asks for a login. Check the token'),
        ((403, b'no'), '{host} answers HTTP 403. Access is denied. Check the token,'),
        ((404, b'no'), '{host} answers HTTP 404. There is nothing at this address.'),
        ((429, b'no'), '{host} answers HTTP 429. Too many requests. Wait some minutes'),
        ((503, b'no'), '{host} answers HTTP 503. The server is busy or broken. Try'),
        ((200, b'<!doctype html><p>'), '{host} answers with a web page in place of'),
        ((200, b'hello'), '{host} answers with text in place of JSON. Check that the'),
        (
            (200, b'{}', 0.9),
            '{host} does not answer in time. Try again later, or check',
        ),
        ('127.0.0.1:9', '127.0.0.1:9 refuses the connection. Check host and port, and'),
        ('no.invalid', 'The host no.invalid is unknown. Check its spelling, and your'),
        (UNVERIFIED, 'cannot be verified (self-signed certificate). Check address and'),
    ],
)
def test_failed_requests_are_one_plain_line(
    run: Run,
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    answer: Any,
    expected: str,
) -> None:
    for module in ('torchgeo_ctm.catalog', 'torchgeo_ctm.scenes.remote'):
        monkeypatch.setattr(f'{module}.RETRIES', 0)
        monkeypatch.setattr(f'{module}.WAIT', 0.3)
    server = answering(*answer) if isinstance(answer, tuple) else nullcontext(answer)
    if isinstance(answer, Exception):

        def fails(*_: object, **__: object) -> None:
            raise answer

        monkeypatch.setattr(requests.Session, 'send', fails)
        server = nullcontext('host')
    with server as host:
        url = f'http://{host}/v1/item.json?key=1'
        call = {
            'search': ('search', *OPTIONS, url, '--output', tmp_path / 's.json'),
            'predict': (
                'predict', url, '--checkpoint', checkpoint, '--output',
                tmp_path / 'm.tif',
            ),
        }  # fmt: skip
        refused(run(*call[command]), url, expected.format(host=host))


def test_content_that_is_no_stac(run: Run, tmp_path: Path) -> None:
    with answering(200, b'[1]') as host:
        call = ('search', *OPTIONS, f'http://{host}', '--output', tmp_path / 's.json')
        refused(run(*call), 'its content is not valid STAC (AttributeError: ')


def test_an_address_without_https(run: Run, tmp_path: Path) -> None:
    call = ('search', *OPTIONS, 'earth.com/v1', '--output', tmp_path / 's.json')
    refused(run(*call), 'There is no such file.', 'A URL begins with https://')


def test_the_extra_is_named(catalog: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(CTMError, match=r'pip install "torchgeo-ctm\[catalog\]"'):
        search(str(catalog), BOX, '2026')
