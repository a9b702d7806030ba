from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

from tests.commands import Run, refused
from tests.fakes.class_rasters import UTM, write_classes
from torchgeo_ctm.assessment.suggest import suggest
from torchgeo_ctm.errors import LabelWarning, SceneError

NAMES = ['a', 'b', 'c']
SIDE = 8


def write_map(
    path: Path,
    shares: NDArray[np.float64],
    transform: Affine = UTM,
    crs: str = 'EPSG:32630',
) -> Path:
    """Write a mask and its probabilities (C, H, W), as predict does."""
    mask = write_classes(
        path, shares.argmax(axis=0).astype(np.uint8), crs, transform, NAMES
    )
    with rasterio.open(mask) as raster:
        profile = raster.profile | {'count': 3}
    with rasterio.open(
        path.with_name(f'{path.stem}_probabilities.tif'), 'w', **profile
    ) as raster:
        raster.write(np.rint(100 * shares).astype(np.uint8))
    return mask


def windows(rng: np.random.Generator, rows: int, cols: int) -> NDArray[np.float64]:
    """Return shares (3, H, W) that are certain, but differ between windows."""
    classes = np.kron(rng.integers(0, 2, (rows, cols)), np.ones((SIDE, SIDE), int))
    shares: NDArray[np.float64] = np.where(np.eye(3)[classes] > 0, 0.98, 0.01)
    return np.moveaxis(shares, -1, 0)


def test_the_uncertain_window_comes_first(tmp_path: Path) -> None:
    shares = windows(np.random.default_rng(0), 4, 5)
    shares[:, SIDE : 2 * SIDE, 2 * SIDE : 3 * SIDE] = np.array([0.4, 0.4, 0.2])[
        :, None, None
    ]
    mask = write_map(tmp_path / 'm.tif', shares)
    frame = suggest([mask], tmp_path / 'n.gpkg', number=4, window=SIDE)
    assert frame['rank'].tolist() == [1, 2, 3, 4]
    left, top = UTM @ (2 * SIDE, SIDE)
    assert frame.geometry[0].bounds == (left, top - 80, left + 80, top)
    written = gpd.read_file(tmp_path / 'n.gpkg')
    assert written['classes'].isna().all()
    assert (written.area == 80 * 80).all()


def test_no_ground_is_suggested_twice(tmp_path: Path) -> None:
    """Neither within one map, nor in another of the same ground, nor under labels."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), (32, 40)).transpose(2, 0, 1)
    one = write_map(tmp_path / 'one.tif', shares)
    moved = UTM @ Affine.translation(3, 5)
    other = write_map(tmp_path / 'other.tif', shares, moved)
    first = suggest([one, other], tmp_path / 'n.gpkg', number=6, window=SIDE)
    pairs = shapely.STRtree(first.geometry).query(first.geometry, 'intersects')
    shared = [
        shapely.intersection(first.geometry[a], first.geometry[b]).area
        for a, b in pairs.T
        if a != b
    ]
    assert max(shared, default=0) < 0.01 * 6400
    labels = tmp_path / 'l.gpkg'
    first.assign(classes='a; b').to_crs('EPSG:4326').to_file(labels)
    with pytest.warns(LabelWarning, match='have room for'):
        second = suggest(
            [one, other], tmp_path / 'n.gpkg', number=90, window=SIDE, labels=labels,
            overwrite=True,
        )  # fmt: skip
    known = shapely.union_all(first.geometry)
    assert shapely.intersection(second.geometry, known).area.max() < 0.011 * 6400
    assert set(second['map']) <= {'one.tif', 'other.tif'}


def test_windows_differ_and_rare_classes_are_needed(tmp_path: Path) -> None:
    """Twenty equal windows and one of another class: it is among the first two."""
    shares = np.full((3, SIDE, 21 * SIDE), 0.1)
    shares[0] = 0.5
    shares[1] = 0.4
    shares[:, :, -SIDE:] = np.array([0.1, 0.4, 0.5])[:, None, None]
    mask = write_map(tmp_path / 'm.tif', shares)
    frame = suggest([mask], tmp_path / 'n.gpkg', number=2, window=SIDE)
    assert frame.bounds.maxx.max() == (UTM @ (21 * SIDE, 0))[0]


def test_classes_that_all_labels_have_need_windows_without(tmp_path: Path) -> None:
    """Tags of windows with every class do not tell which pixel is which."""
    shares = np.full((3, SIDE, 2 * SIDE), 0.05)
    shares[0] = 0.9
    shares[:2, :, : SIDE // 2] = np.array([0.05, 0.9])[:, None, None]
    mask = write_map(tmp_path / 'm.tif', shares)
    far = [shapely.box(0, n, 1, n + 1) for n in range(10)]
    labels = gpd.GeoDataFrame({'classes': ['a; b; c'] * 10}, geometry=far)
    labels.set_crs('EPSG:32630').to_file(tmp_path / 'l.gpkg')
    options = {'number': 1, 'window': SIDE, 'labels': tmp_path / 'l.gpkg'}
    frame = suggest([mask], tmp_path / 'n.gpkg', **options)  # type: ignore[arg-type]
    assert frame['predicted'].tolist() == ['a']


def test_confidence_stands_in_for_probabilities(tmp_path: Path) -> None:
    values = np.zeros((2 * SIDE, 3 * SIDE), np.uint8)
    values[:, SIDE:] = 1
    mask = write_classes(tmp_path / 'm.tif', values, names=NAMES)
    with pytest.raises(SceneError, match='neither m_probabilities'):
        suggest([mask], tmp_path / 'n.gpkg', window=SIDE)
    percent = np.full(values.shape, 99, np.uint8)
    percent[SIDE:, SIDE : 2 * SIDE] = 40
    write_classes(
        tmp_path / 'm_confidence.tif',
        percent,
        names=None,
        description='confidence, per cent',
    )
    frame = suggest([mask], tmp_path / 'n.gpkg', number=1, window=SIDE)
    assert frame.geometry[0].bounds[:1] == ((UTM @ (SIDE, 0))[0],)


def test_a_certain_map_is_said(tmp_path: Path) -> None:
    shares = np.zeros((3, 4 * SIDE, 4 * SIDE))
    shares[0] = 1
    mask = write_map(tmp_path / 'm.tif', shares)
    with pytest.warns(LabelWarning, match='certain almost everywhere'):
        frame = suggest([mask], tmp_path / 'n.gpkg', number=3, window=SIDE)
    assert len(frame) == 3


def test_mistakes(run: Run, tmp_path: Path) -> None:
    shares = windows(np.random.default_rng(0), 2, 2)
    mask = write_map(tmp_path / 'm.tif', shares)
    out = tmp_path / 'n.gpkg'
    refused(run('suggest', '--output', out), 'required', 'MAPS')
    refused(run('suggest', mask, '--output', tmp_path / 'n.shp'), 'not a vector file')
    refused(run('suggest', mask, '--output', out, '--number', 0), '--number 0')
    refused(run('suggest', mask, '--output', out, '--window', 64), 'no window of 64 px')
    other = write_classes(tmp_path / 'o.tif', shares[0].astype(np.uint8), names=['x'])
    refused(run('suggest', mask, other, '--output', out), 'has the classes x')
    everywhere = gpd.GeoDataFrame(
        {'classes': ['a']},
        geometry=[shapely.box(4e5, 4.1e6, 6e5, 4.3e6)],
        crs='EPSG:32630',
    )
    everywhere.to_file(tmp_path / 'l.gpkg')
    labeled = ('suggest', mask, '--output', out, '--window', SIDE, '--labels')
    refused(run(*labeled, tmp_path / 'l.gpkg'), 'All windows of the maps are labeled')
    refused(run(*labeled, tmp_path / 'l.gpkg', '--field', 'clases'), "'classes'?")
    refused(run(*labeled, out), 'does not exist')
    assert not out.exists()
    status, printed, _ = run(
        'suggest', mask, '--output', out, '--window', 8, '--number', 2
    )
    assert status == 0
    assert printed.splitlines() == [f'{"m.tif":<20}  2', str(out)]
