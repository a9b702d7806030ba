import json
import sqlite3
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine

from tests.commands import Run, refused
from tests.fakes.class_rasters import NAMES, UTM, random_classes, write_classes
from torchgeo_ctm.assessment.clusters import draw_clusters
from torchgeo_ctm.assessment.samples import draw_samples
from torchgeo_ctm.errors import Note, OutputError, SettingError
from torchgeo_ctm.inference import masks


@pytest.fixture(autouse=True)
def small_row_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, 'ROW_BAND', 3000)


def samples(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(path, layer=pyogrio.list_layers(path)[0, 0])


def mapped(frame: gpd.GeoDataFrame, mask: Path) -> Any:
    with rasterio.open(mask) as raster:
        points = [(p.x, p.y) for p in frame.geometry]
        return np.array([v[0] for v in raster.sample(points)])


@pytest.mark.parametrize(
    ('crs', 'transform'),
    [
        ('EPSG:32630', UTM),
        ('EPSG:4326', Affine(1e-4, 0, 10, 0, -1e-4, 50)),
        ('EPSG:32630', UTM @ Affine.rotation(20)),
        (None, Affine.identity()),
    ],
    ids=['utm', 'degrees', 'rotated', 'pixels'],
)
def test_samples_are_pixels_of_their_class(
    tmp_path: Path, crs: str | None, transform: Affine
) -> None:
    values = random_classes(120, 150)
    mask = write_classes(tmp_path / 'm.tif', values, crs, transform)
    numbers = draw_samples(mask, tmp_path / 's.gpkg', size=200, floor=20, window=5)
    frame = samples(tmp_path / 's.gpkg')
    found = np.bincount(mapped(frame, mask), minlength=len(NAMES))
    assert dict(zip(NAMES, found.tolist(), strict=True)) == numbers
    assert found.sum() == 200
    assert found.min() >= 20
    pixels = np.bincount(values[values < 255])
    np.testing.assert_allclose(found / 200, pixels / pixels.sum(), atol=0.01)
    assert frame['reference'].isna().all()
    assert len(set(frame['pixel'])) == 200
    outlines = [gpd.GeoSeries.from_wkt(frame[c]) for c in ('pixel', 'window')]
    for outline in outlines:
        np.testing.assert_allclose(
            shapely.get_coordinates(outline.centroid),
            shapely.get_coordinates(frame.geometry),
            rtol=1e-9,
        )
    assert (outlines[1].area / outlines[0].area).to_numpy() == pytest.approx(25)
    # neither order nor columns tell the class of the map
    assert {'id', 'reference', 'pixel', 'window', 'geometry'} == {*frame.columns}
    assert np.abs(np.corrcoef(frame['id'], mapped(frame, mask))[0, 1]) < 0.2


def test_a_seed_gives_the_same_samples_and_pixels_are_equally_likely(
    tmp_path: Path,
) -> None:
    mask = write_classes(tmp_path / 'm.tif', np.zeros((4, 5), np.uint8), names=['a'])
    counts = np.zeros((4, 5))
    for seed in range(40):
        draw_samples(mask, tmp_path / 's.gpkg', size=10, seed=seed, overwrite=True)
        frame = samples(tmp_path / 's.gpkg')
        cols, rows = ~UTM @ np.array([(p.x, p.y) for p in frame.geometry]).T
        np.add.at(counts, (rows.astype(int), cols.astype(int)), 1)
    # binomial of 40 and 1/2: a deviation of 3.2
    assert counts.sum() == 400
    assert np.abs(counts - 20).max() < 13
    draw_samples(mask, tmp_path / 't.gpkg', size=10, seed=39)
    assert samples(tmp_path / 't.gpkg').equals(frame)


def test_samples_that_somebody_has_labeled_are_never_replaced(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', np.zeros((9, 9), np.uint8), names=['a'])
    output = tmp_path / 's.gpkg'
    draw_samples(mask, output, size=10)
    frame = samples(output)
    frame.loc[0, 'reference'] = ' '
    frame.to_file(output, layer='s')
    draw_samples(mask, output, size=10, overwrite=True)
    frame.loc[:2, 'reference'] = 'a'
    frame.to_file(output, layer='s')
    for overwrite in (False, True):
        with pytest.raises(OutputError, match='holds 3 samples that somebody has'):
            draw_samples(mask, output, size=10, overwrite=overwrite)
    assert samples(output)['reference'].notna().sum() == 3


def test_masked_and_nodata_pixels_are_not_drawn(tmp_path: Path) -> None:
    values = np.zeros((20, 20), np.uint8)
    values[:5] = 255
    mask = write_classes(tmp_path / 'm.tif', values, names=['a'])
    valid = np.ones((20, 20), bool)
    valid[:, :15] = False
    with rasterio.open(mask, 'r+') as raster:
        raster.nodata = None
        raster.write_mask(valid)
    draw_samples(mask, tmp_path / 's.gpkg', size=75)
    frame = samples(tmp_path / 's.gpkg')
    assert len(frame) == 75
    assert frame.geometry.x.min() > 500_150


def test_qgis_finds_the_classes_in_the_geopackage(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(50, 60))
    draw_samples(mask, tmp_path / 's.gpkg', size=50)
    with sqlite3.connect(tmp_path / 's.gpkg') as database:
        rows = database.execute(
            'SELECT f_table_name, f_geometry_column, useAsDefault, styleQML '
            'FROM layer_styles'
        ).fetchall()
    assert [row[:3] for row in rows] == [('s', 'geom', 1)]
    assert rows[0][3].count('type="ValueMap"') == 1
    assert 'value="Urban &amp; &lt;Built-up&gt;/Roads"' in rows[0][3]
    assert 'value="other (not on the map)"' in rows[0][3]
    metadata = pyogrio.read_info(tmp_path / 's.gpkg', 's')['dataset_metadata']
    assert list(json.loads(metadata['CTM_STRATA'])) == NAMES


def test_expected_accuracy_moves_samples_to_uncertain_classes(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(120, 150))
    output = tmp_path / 's.gpkg'
    plain = draw_samples(mask, output, size=400)
    moved = draw_samples(
        mask, output, size=400, expected=['0.97', 'water=0.6'], overwrite=True
    )
    assert moved['Water'] > 1.5 * plain['Water']
    sized = draw_samples(
        mask, output, standard_error=0.02, expected=['0.8'], overwrite=True
    )
    assert sum(sized.values()) == 400  # 0.8 · 0.2 / 0.02²


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ((), ['--size or --standard_error', 'neither']),
        (('--size', 0), ['--size 0 is too small']),
        (('--size', 9, '--standard_error', 0.1), ['both']),
        (('--standard_error', 2), ['0 to 0.5']),
        (('--size', 9, '--expected', 'Watr=0.5'), ["Did you mean 'Water'?"]),
        (('--size', 9, '--expected', '90'), ["Invalid --expected '90'"]),
        (('--size', 9, '--window', 0), ['--window 0']),
        (('--size', 3), ['--size 3 is less than the 4 classes of the map']),
    ],
)
def test_wrong_options(
    run: Run, tmp_path: Path, options: tuple[object, ...], words: list[str]
) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(20, 20))
    refused(run('sample', mask, '--output', tmp_path / 's.gpkg', *options), *words)
    assert [path.name for path in tmp_path.iterdir()] == ['m.tif']


def test_files_that_cannot_be_replaced(run: Run, tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(20, 20))
    output = tmp_path / 's.gpkg'
    command = ('sample', mask, '--size', 40, '--output')
    refused(run(*command, tmp_path / 's.fgb'), "Did you mean 's.gpkg'?")
    assert run(*command, output)[0] == 0
    refused(run(*command, output), 'already exists', '--overwrite')
    # QGIS keeps a file open in this mode
    other = sqlite3.connect(output)
    other.execute('PRAGMA journal_mode = WAL')
    other.execute('UPDATE layer_styles SET owner = 1')
    other.commit()
    before = output.read_bytes()
    refused(run(*command, output, '--overwrite'), 'open in another program')
    refused(run('vectorize', mask, output, '--overwrite'), 'open in another program')
    assert output.read_bytes() == before
    other.close()
    assert run(*command, output, '--overwrite')[0] == 0
    refused(
        run('sample', tmp_path / 'no.tif', '--size', 9, '--output', output), 'exist'
    )


def test_few_samples_of_a_class_are_said(tmp_path: Path) -> None:
    values = np.zeros((30, 30), np.uint8)
    values[0, :3] = 1
    mask = write_classes(tmp_path / 'm.tif', values, names=['a', 'b', 'c'])
    with pytest.warns(UserWarning, match=r'b \(3\): fewer than 10'):
        numbers = draw_samples(mask, tmp_path / 's.gpkg', size=100)
    assert numbers == {'a': 97, 'b': 3, 'c': 0}
    with pytest.raises(SettingError, match='neither'):
        draw_samples(mask, tmp_path / 't.gpkg')


def test_clusters_are_pixels_of_few_blocks(tmp_path: Path) -> None:
    values = random_classes(120, 150)
    values[:30] = 255
    mask = write_classes(tmp_path / 'm.tif', values)
    numbers = draw_samples(mask, tmp_path / 's.gpkg', size=60, clusters=12, block=20)
    frame = samples(tmp_path / 's.gpkg')
    found = np.bincount(mapped(frame, mask), minlength=len(NAMES))
    assert found.tolist() == list(numbers.values())
    assert frame.groupby('cluster').size().tolist() == [5] * 12
    cols, rows = ~UTM @ np.array([(p.x, p.y) for p in frame.geometry]).T
    blocks = rows // 20 * 100 + cols // 20
    for _, block in frame.groupby('cluster'):
        assert len(set(blocks[block.index])) == 1
        assert len(set(block['pixel'])) == 5


def test_every_pixel_is_as_likely_in_clusters(tmp_path: Path) -> None:
    """Also in blocks at the edge, and those that hold nodata."""
    values = np.zeros((5, 7), np.uint8)
    values[0, :2] = 255
    mask = write_classes(tmp_path / 'm.tif', values, names=['a'])
    counts = np.zeros((5, 7))
    with rasterio.open(mask) as raster:
        for seed in range(300):
            rng = np.random.default_rng(seed)
            drawn = draw_clusters(raster, 11, 3, 22, rng)
            np.add.at(counts, tuple(drawn.pixels.T), 1)
    assert counts.sum() == 6600
    assert (counts[0, :2] == 0).all()
    # 200 each, with pairs in a block: a deviation of 15
    assert np.abs(counts[values == 0] - 200).max() < 60


def test_a_floor_that_asks_for_more_is_said(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(60, 80))
    with pytest.warns(Note, match=r'--floor 40 in each class gives \d+ samples, more'):
        drawn = draw_samples(mask, tmp_path / 's.gpkg', size=50, floor=40)
    assert sum(drawn.values()) > 50


def test_bad_clusters(run: Run, tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(20, 20))
    place = [mask, '--output', tmp_path / 's.gpkg']

    def fails(*words: object) -> str:
        result = run('sample', *place, *words)
        refused(result)
        return result[2]

    assert 'block=2 px has 4 pixels' in fails(
        '--clusters', 5, '--size', 60, '--block', 2
    ).replace('--block 2', 'block=2')
    assert 'Pass --clusters too' in fails('--size', 60, '--block', 50)
    assert '--clusters requires --size' in fails(
        '--clusters', 5, '--standard_error', 0.01
    )
    assert '--size 4 is less than --clusters 5' in fails('--clusters', 5, '--size', 4)
    assert '--clusters 1 is too small' in fails('--clusters', 1, '--size', 4)
    words = ['--clusters', 5, '--size', 9, '--block', 20]
    assert '--block 20 is as large as the map of 20 × 20 px' in fails(*words)
    words = ['--clusters', 5, '--size', 9, '--floor', 3]
    assert '--floor is for samples of each class' in fails(*words)
