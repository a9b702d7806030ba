"""Generators of inputs that are wrong, damaged or unusual, by kind.

Each kind draws one input, gives it to the package, and checks the law of its kind: the
right result, or one line of a :class:`CTMError`. Anything else is a fault.
"""

import json
import os
import struct
import tarfile
import unicodedata
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyproj
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray

from tests.conftest import tiny_task
from tests.fakes import bad_chips
from torchgeo_ctm import scoring, trainers
from torchgeo_ctm.configuration import read_section
from torchgeo_ctm.datasets.archives import extract
from torchgeo_ctm.errors import CTMError, GridError
from torchgeo_ctm.files import check_not_read
from torchgeo_ctm.grids import Grid, check_same_grid
from torchgeo_ctm.inference.journal import ScoreJournal
from torchgeo_ctm.inference.style import style_of
from torchgeo_ctm.labels import PointLabels, TableLabels
from torchgeo_ctm.scenes.scene import SceneWindows
from torchgeo_ctm.scenes.sentinel2 import xml_facts
from torchgeo_ctm.trainers import load_task

Random = np.random.Generator
Kind = Callable[[Random, Path], None]
BANDS = ('B02', 'B03', 'B04')
NAMES = ('Forest', 'Wälder, naß', 'Water; still', 'Land, with trees', 'Ά|ώ', 'x' * 80)


@dataclass
class Count:
    """How many inputs of a kind were tried, and what failed."""

    tried: int
    faults: list[str]


def write_raster(path: Path, pixels: NDArray[Any], **options: Any) -> Path:
    """Write a small georeferenced raster."""
    bands = options.pop('descriptions', None)
    profile = {'crs': 'EPSG:32630', 'transform': Affine(10, 0, 5e5, 0, -10, 4.2e6)}
    count, height, width = pixels.shape
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        **(profile | options),
    ) as raster:
        raster.write(pixels)
        if bands is not None:
            raster.descriptions = bands
    return path


def open_quietly(path: Path | str, **options: Any) -> SceneWindows:
    """Open a scene without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return SceneWindows(path, BANDS, 8, 8, **options)


def damaged(rng: Random, content: bytes) -> bytes:
    """Cut, flip, zero, or replace bytes, as a disk or a power loss would."""
    raw = bytearray(content)
    start = int(rng.integers(len(raw) or 1))
    stop = start + 1 + int(rng.integers(max(1, len(raw) // 4)))
    how = rng.integers(6)
    if how == 0:
        return bytes(raw[:start])
    if how == 1:
        return b''
    if how == 2:
        raw[start:stop] = bytes(len(raw[start:stop]))
    if how == 3:
        for position in range(start, min(stop, len(raw))):
            raw[position] ^= int(rng.integers(1, 256))
    if how == 4:
        raw[start:stop] = rng.bytes(len(raw[start:stop]))
    if how == 5:
        raw[start:start] = rng.bytes(7)
    return bytes(raw)


def nodata_values(rng: Random, folder: Path) -> None:
    """Nodata in some bands, of any type, with rounding."""
    dtype, nodata = [
        ('int16', -9999.0), ('uint16', 65535.0), ('float32', -3.4028230607370965e38),
        ('float32', 1e-3), ('float64', np.nan), ('float32', -9999.0), ('uint8', 255.0),
    ][rng.integers(7)]  # fmt: skip
    pixels = rng.integers(1, 200, (3, 12, 14)).astype(dtype)
    missing = rng.random((3, 12, 14)) < 0.2
    pixels[missing] = nodata
    if pixels.dtype.kind == 'f':
        infinite = rng.random(pixels.shape) < 0.05
        pixels[infinite] = rng.choice([np.nan, np.inf, -np.inf])
        missing |= infinite
    path = write_raster(folder / 's.tif', pixels, nodata=nodata, descriptions=BANDS)
    scene = open_quietly(path)
    found = [scene[i] for i in range(len(scene))]
    valid = np.zeros((12, 14), bool)
    for sample in found:
        row, col, height, width = sample['window'].tolist()
        inside = sample['valid'][:height, :width].numpy()
        valid[row : row + height, col : col + width] = inside
        assert sample['image'].isfinite().all()
    np.testing.assert_array_equal(valid, ~missing.any(axis=0))


def scaled_values(rng: Random, folder: Path) -> None:
    """Scale and offset tags that make reflectances, in one file or one per band."""
    scale = float(rng.choice([1e-4, 2.75e-5, 5e-5, 1e-3]))
    offset = float(rng.choice([0, -0.2, -0.1, 0.01]))
    reflectance = rng.uniform(0.02, 0.6, (3, 8, 8))
    stored = np.round((reflectance - offset) / scale).clip(1, 65000).astype('uint16')
    expected = (stored * scale + offset) * 10_000
    if rng.random() < 0.5:
        path = folder / 's.tif'
        write_raster(path, stored, descriptions=BANDS)
        files = [path]
    else:
        path = folder / 'bands'
        path.mkdir()
        files = [
            write_raster(path / f'{name}.tif', stored[i : i + 1])
            for i, name in enumerate(BANDS)
        ]
    for file in files:
        with rasterio.open(file, 'r+') as raster:
            raster.scales = (scale,) * raster.count
            raster.offsets = (offset,) * raster.count
    image = open_quietly(path)[0]['image'].numpy()
    np.testing.assert_allclose(image, expected, rtol=1e-4, atol=0.1)


def changed_files(rng: Random, folder: Path) -> None:
    """One byte more or less in any file of a scene changes its fingerprint."""
    pixels = rng.integers(1, 9000, (3, 16, 16)).astype('uint16')
    base = write_raster(folder / 'x.tif', pixels, descriptions=BANDS)
    scene: Path = base
    kind = rng.integers(3)
    if kind == 1:
        bands = ''.join(
            f'<VRTRasterBand dataType="UInt16" band="{i}"><Description>{name}'
            '</Description><SimpleSource><SourceFilename relativeToVRT="1">x.tif'
            f'</SourceFilename><SourceBand>{i}</SourceBand></SimpleSource>'
            '</VRTRasterBand>'
            for i, name in enumerate(BANDS, 1)
        )
        scene = folder / 'inner.vrt'
        size = 'rasterXSize="16" rasterYSize="16"'
        scene.write_text(f'<VRTDataset {size}>{bands}</VRTDataset>')
        if rng.random() < 0.5:
            outer = folder / 'outer.vrt'
            outer.write_text(scene.read_text().replace('x.tif', 'inner.vrt'))
            scene = outer
    if kind == 2:
        scene = folder / 'bands'
        scene.mkdir()
        for i, name in enumerate(BANDS):
            write_raster(scene / f'{name}.tif', pixels[i : i + 1])
        base = scene / f'{BANDS[rng.integers(3)]}.tif'
    before = open_quietly(scene).fingerprint()
    assert before == open_quietly(scene).fingerprint()
    if rng.random() < 0.3:
        mask = np.full((1, 16, 16), 255, np.uint8)
        mask[:, 3:9] = 0
        write_raster(Path(f'{base}.msk'), mask)
        with rasterio.open(f'{base}.msk', 'r+') as raster:
            raster.update_tags(INTERNAL_MASK_FLAGS_1='2')
    else:
        stat = base.stat()
        raw = bytearray(base.read_bytes())
        raw[-1 - int(rng.integers(200))] ^= 1 + int(rng.integers(255))
        base.write_bytes(raw)
        os.utime(base, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    try:
        after = open_quietly(scene)
    except CTMError:
        # names of bands, or the header, are damaged
        return
    assert after.fingerprint() != before
    taken = folder / 'hard_link.tif'
    taken.hardlink_to(base)
    try:
        check_not_read([taken], open_quietly(scene).input_files())
    except CTMError:
        return
    raise AssertionError('a file that is read may be replaced')


def damaged_journals(rng: Random, folder: Path) -> None:
    """Damage to any file of a journal: windows that count are as they were."""
    journal = ScoreJournal(folder / '.m.tif.part', {'a': 1}, 9)
    journal.start()
    dtype = rng.choice(['float32', 'uint8'])
    scores = (200 * rng.random((9, 3, 4, 4))).astype(dtype)
    valid = rng.random((9, 9, 9)) < 0.5
    done = np.sort(rng.permutation(9)[: rng.integers(1, 10)])
    nothing = rng.random(9) < 0.3
    journal.write(done, scores[done], valid[done], nothing[done])
    files = [p for p in sorted(journal.folder.iterdir()) if p.name != 'create.lock']
    for path in rng.choice(np.array(files, object), rng.integers(1, 3), replace=False):
        if rng.random() < 0.15:
            path.unlink()
        else:
            path.write_bytes(damaged(rng, path.read_bytes()))
    again = ScoreJournal(journal.folder, {'a': 1}, 9)
    again.start()
    again.reload()
    held = np.flatnonzero(again.finished)
    assert set(held) <= set(done)
    if len(held):
        found, known = again.read(held, 9)
        np.testing.assert_array_equal(found, scores[held])
        np.testing.assert_array_equal(known, valid[held])
        np.testing.assert_array_equal(again.finished[held] > 1, nothing[held])
    again.write(done, scores[done], valid[done], nothing[done])
    found, _ = again.read(done, 9)
    np.testing.assert_array_equal(found, scores[done])


def damaged_checkpoints(rng: Random, folder: Path) -> None:
    """Bytes that rotted, and hyperparameters of wrong types and sizes."""
    path = folder / 'c.ckpt'
    task = tiny_task()
    trainers.save_task(task, path)
    state = {k: v.clone() for k, v in task.state_dict().items()}
    if rng.random() < 0.5:
        path.write_bytes(damaged(rng, path.read_bytes()))
    else:
        content = torch.load(path, weights_only=True)
        hparams = content['hyper_parameters']
        wrong: list[object] = [
            None,
            [],
            {},
            'zzz',
            -1,
            10**9,
            0,
            1.5,
            True,
            ['zzz'] * 3,
            '\ud800',
        ]
        name = rng.choice(sorted(hparams))
        hparams[str(name)] = wrong[rng.integers(len(wrong))]
        if rng.random() < 0.2:
            next(iter(content['state_dict'].values())).view(-1)[0] = float('nan')
        if rng.random() < 0.1:
            content['hyper_parameters'] = None
        torch.save(content, path)
    loaded = load_task(path)
    for name, tensor in loaded.state_dict().items():
        assert tensor.isfinite().all()
        if name in state and name.startswith('model.'):
            assert torch.equal(tensor, state[name])


def spelled_crs(rng: Random, folder: Path) -> None:
    """One CRS in other words is one grid, and another CRS is another grid."""
    code = int(rng.choice([32630, 25832, 3035, 4326, 3857, 2154, 32733]))
    crs = pyproj.CRS.from_epsg(code)
    spellings: list[Any] = [crs.to_wkt(v) for v in ('WKT1_GDAL', 'WKT2_2018')]
    if not crs.is_geographic:
        spellings.append(f'EPSG:{code}+5773')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        proj = crs.to_proj4()
    spellings.append(proj.replace('+datum=WGS84', '+ellps=WGS84'))
    spelled = spellings[rng.integers(len(spellings))]
    pixel = 1e-4 if crs.is_geographic else 10.0
    transform = Affine(pixel, 0, 9.5, 0, -pixel, 48.0)
    if not crs.is_geographic:
        transform = Affine(pixel, 0, 5e5, 0, -pixel, 5.2e6)
    one = Grid(20, 30, rasterio.crs.CRS.from_epsg(code), transform)
    other = Grid(20, 30, rasterio.crs.CRS.from_user_input(spelled), transform)
    check_same_grid('a', one, 'b', other)
    far = 32631 if code != 32631 else 32632
    try:
        check_same_grid(
            'a', one, 'b', one._replace(crs=rasterio.crs.CRS.from_epsg(far))
        )
    except GridError:
        return
    raise AssertionError(f'EPSG:{code} and EPSG:{far} count as one')


def class_names(rng: Random, folder: Path) -> None:
    """Names with commas, delimiters, and letters in two forms, in tables."""
    chosen = [str(name) for name in rng.choice(NAMES, 3, replace=False)]
    forms: tuple[Literal['NFC', 'NFD'], ...] = ('NFC', 'NFD')
    form = forms[int(rng.integers(2))]
    rows = [(f't{i}.tif', unicodedata.normalize(form, n)) for i, n in enumerate(chosen)]
    sign = str(rng.choice([',', ';', '\t']))
    coding = str(rng.choice(['utf-8', 'utf-8-sig', 'utf-16']))
    lines = [f'"{tile}"{sign}"{name}"' for tile, name in [('tile', 'class'), *rows]]
    if rng.random() < 0.5 and coding != 'utf-16':
        lines.insert(0, f'sep={sign}')
    path = folder / 't.csv'
    path.write_bytes(('\r\n'.join(lines) + '\r\n').encode(coding))
    labels = TableLabels(path, 'tile', 'class', chosen)
    assert list(labels.classes) == chosen
    for number, (tile, _) in enumerate(rows):
        label = labels.label(None, unicodedata.normalize('NFD', tile))  # type: ignore[arg-type]
        assert label is not None
        assert label.present.tolist() == [float(i == number) for i in range(3)]


def damaged_tables(rng: Random, folder: Path) -> None:
    """Tables of points with any damage."""
    text = 'lon;lat;class\n10,5764;54,0999;Forst\n10,5780;54,0990;Wasser\n'
    path = folder / 'p.csv'
    path.write_bytes(damaged(rng, text.encode(str(rng.choice(['utf-8', 'utf-16'])))))
    labels = PointLabels(path, 'class')
    assert 1 <= len(labels) <= 3


def damaged_metadata(rng: Random, folder: Path) -> None:
    """Sentinel-2 metadata with impossible numbers, times, encodings."""
    values = ['nan', 'inf', '-1000', '', 'x', '1e400', '20209999T999999', '\u2460']
    value = values[rng.integers(len(values))]
    tag = rng.choice(['RADIO_ADD_OFFSET', 'PRODUCT_START_TIME', 'PROCESSING_BASELINE'])
    coding = rng.choice(['utf-8', 'foo', 'utf-32', 'ascii', ''])
    head = f'<?xml version="1.0" encoding="{coding}"?>' if coding else ''
    text = f'{head}<r><{tag}>{value}</{tag}><!-- c --></r>'.encode()
    facts = xml_facts('x', damaged(rng, text) if rng.random() < 0.3 else text)
    assert facts.offset is None or np.isfinite(facts.offset)


def damaged_tags(rng: Random, folder: Path) -> None:
    """Tags of class names that are no list of names."""
    tags = ['{', 'null', '7', '[1, 2]', '"x"', '[' * 5000, '["a", "b"]', '[]', '[null]']
    tags += ['["a"]', '["", ""]', '["\\ud800"]', '["a", "a"]', json.dumps(['x' * 3000])]
    tag = tags[rng.integers(len(tags))]
    classes = rng.integers(0, 2, (1, 8, 8)).astype(np.uint8)
    mask = write_raster(folder / 'm.tif', classes, nodata=255)
    reference = write_raster(folder / 'r.tif', classes)
    with rasterio.open(mask, 'r+') as raster:
        raster.update_tags(CLASS_NAMES=tag)
    style = style_of(mask, folder / 'm.qml').read_text('utf-8')
    assert style.count('<paletteEntry') == style.count('<category ')
    if rng.random() < 0.3:
        reference.write_bytes(damaged(rng, reference.read_bytes()))
        # what is left may be readable, with other values
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            scoring.evaluate(mask, reference)
        return
    assert scoring.evaluate(mask, reference)['miou'] == 1


def damaged_archives(rng: Random, folder: Path) -> None:
    """Archives that are cut, encrypted, or want to write elsewhere."""
    content = rng.bytes(3000)
    made = folder / 'made'
    made.mkdir()
    (made / 'x.bin').write_bytes(content)
    tar = rng.random() < 0.5
    path = folder / ('a.tar' if tar else 'a.zip')
    escape = rng.random() < 0.3
    name = '../evil.bin' if escape else 'd/x.bin'
    if tar:
        with tarfile.open(path, 'w') as packed:
            packed.add(made / 'x.bin', name)
    else:
        with zipfile.ZipFile(path, 'w') as packed_zip:
            packed_zip.write(made / 'x.bin', name)
    raw = path.read_bytes()
    if not tar and rng.random() < 0.3:
        # the flag of encryption, in both headers of the member
        at = raw.find(b'PK\1\2') + 8
        flags = struct.pack('<H', 1)
        raw = raw[:6] + flags + raw[8:at] + flags + raw[at + 2 :]
    elif rng.random() < 0.5:
        raw = raw[: rng.integers(len(raw))]
    path.write_bytes(raw)
    target = folder / 'target'
    target.mkdir()
    try:
        extract(path, target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, RuntimeError):
        # fetch() makes these one line
        pass
    finally:
        assert not (folder / 'evil.bin').exists()


def bad_yaml(rng: Random, folder: Path) -> None:
    """Configurations that are deep, full of aliases, or no YAML."""
    bomb = 'a: &a [x]\n' + ''.join(
        f'{c}: &{c} [*{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}, *{p}]\n'
        for p, c in zip('abcdefghijk', 'bcdefghijkl', strict=True)
    )
    texts = ['model: ' + '[' * 3000, bomb, 'model: {', '\t', '- x', 'model: 3', '%', '']
    path = folder / 'c.yaml'
    text = texts[rng.integers(len(texts))].encode()
    path.write_bytes(damaged(rng, text) if text and rng.random() < 0.5 else text)
    assert isinstance(read_section(path, 'model'), dict)
    assert len(json.dumps(read_section(path, 'model'))) < 10**6


KINDS: Mapping[str, Kind] = {
    kind.__name__: kind
    for kind in (
        nodata_values,
        scaled_values,
        changed_files,
        damaged_journals,
        damaged_checkpoints,
        spelled_crs,
        class_names,
        damaged_tables,
        damaged_metadata,
        damaged_tags,
        damaged_archives,
        bad_yaml,
    )
} | bad_chips.KINDS
#: Kinds whose inputs are right, so that a refusal is a fault too.
RIGHT = bad_chips.RIGHT | {
    'nodata_values',
    'scaled_values',
    'changed_files',
    'damaged_journals',
    'spelled_crs',
    'class_names',
}


def attempt(name: str, seed: int, folder: Path) -> str | None:
    """Try one input of a kind.

    Args:
        name: Name of the kind.
        seed: Number of the input.
        folder: An empty folder.

    Returns:
        The fault, or None.
    """
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            KINDS[name](rng, folder)
        except CTMError as error:
            if name in RIGHT or '\n' in str(error):
                return f'seed {seed}: {type(error).__name__}: {error}'
        except BaseException as error:  # noqa: BLE001  any other error is a fault
            return f'seed {seed}: {type(error).__name__}: {str(error)[:300]}'
    return None
