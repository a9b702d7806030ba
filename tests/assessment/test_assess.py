import json
import re
import sqlite3
import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from tests.commands import Run, refused
from tests.fakes.class_rasters import UTM, random_classes, write_classes
from tests.fakes.olofsson import COUNTS, PIXELS
from tests.fakes.olofsson import NAMES as OLOFSSON
from torchgeo_ctm.accuracy import Design, estimate
from torchgeo_ctm.assessment.assess import assess, content, lines
from torchgeo_ctm.assessment.report import page
from torchgeo_ctm.assessment.samples import draw_samples
from torchgeo_ctm.assessment.strata import OTHER
from torchgeo_ctm.errors import LabelError, LabelWarning, Note, SettingError
from torchgeo_ctm.inference.masks import class_names

#: A map with the shares of the paper's, a pixel standing for 2,500.
MAP = np.repeat(np.arange(4), PIXELS // 2500).reshape(50, 80).astype(np.uint8)


def write_points(
    path: Path,
    pixels: NDArray[np.int64],
    reference: list[object],
    crs: str | None = None,
) -> Path:
    xy = np.array([UTM @ (col + 0.5, row + 0.5) for row, col in pixels])
    frame = gpd.GeoDataFrame(
        {'reference': reference}, geometry=gpd.points_from_xy(*xy.T), crs='EPSG:32630'
    )
    (frame if crs is None else frame.to_crs(crs)).to_file(path, driver='GPKG')
    return path


def paper(folder: Path, crs: str | None = None) -> tuple[Path, Path]:
    mask = write_classes(folder / 'm.tif', MAP, names=OLOFSSON)
    pixels, reference = [], []
    for row, counts in enumerate(COUNTS):
        pixels.append(np.argwhere(MAP == row)[np.arange(counts.sum()) % 50])
        reference += np.repeat(OLOFSSON, counts).tolist()
    return mask, write_points(folder / 's.gpkg', np.concatenate(pixels), reference, crs)


@pytest.mark.parametrize('crs', [None, 'EPSG:4326'])
def test_the_example_of_olofsson_2014(tmp_path: Path, crs: str | None) -> None:
    mask, samples = paper(tmp_path, crs)
    found = assess(mask, samples)
    assert found.counts.tolist() == COUNTS.tolist()
    document = content(found)
    overall = document['overall_accuracy']
    assert f'{overall["value"]:.3f} ± {overall["ci95"]:.3f}' == '0.947 ± 0.018'
    share = document['classes']['deforestation']['share']
    assert share['value'] * PIXELS.sum() == pytest.approx(235_086, abs=1)
    assert share['ci95'] * PIXELS.sum() == pytest.approx(68_418, abs=2)
    hectares = document['classes']['deforestation']['area']
    # 4,000 pixels of 0.01 ha in UTM
    assert hectares['value'] == pytest.approx(40 * share['value'], rel=1e-3)
    np.testing.assert_allclose(np.sum(document['confusion_share']), 1)


def test_report_table_json_and_csv(run: Run, tmp_path: Path) -> None:
    mask, samples = paper(tmp_path)
    names = ('a.json', 'a.csv', 'a.html', 'a.png')
    outputs = [tmp_path / name for name in names]
    options = [
        word
        for output in outputs
        for word in (
            f'--{"report" if output.suffix == ".html" else output.suffix[1:]}',
            output,
        )
    ]
    options[-2] = '--plot'
    status, printed, err = run('assess', mask, samples, *options)
    assert status == 0, err
    assert re.search(r'overall accuracy +0\.947 ± 0\.018', printed)
    assert json.loads(outputs[0].read_text())['confusion'] == COUNTS.tolist()
    table = pd.read_csv(outputs[1])
    assert table['class'].tolist() == OLOFSSON
    assert table['reference stable forest'].tolist() == COUNTS[:, 2].tolist()
    assert table['users_accuracy'][0] == pytest.approx(0.88)
    page = outputs[2].read_text(encoding='utf-8')
    assert '0.947 ± 0.018' in page
    assert 'http' not in page.replace('https://doi.org', '')
    assert outputs[3].stat().st_size > 5000
    refused(run('assess', mask, samples, '--csv', outputs[1]), 'a.csv', '--overwrite')


def test_a_drawn_sample_estimates_the_truth(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 3, (20, 20)), np.ones((10, 10), int))
    wrong = rng.random(truth.shape) < 0.2
    mapped = np.where(wrong, rng.integers(0, 3, truth.shape), truth).astype(np.uint8)
    mask = write_classes(tmp_path / 'm.tif', mapped, names=['a', 'b', 'c'])
    samples = tmp_path / 's.gpkg'
    inside = 0
    for seed in range(6):
        draw_samples(mask, samples, size=300, seed=seed, overwrite=True)
        frame = gpd.read_file(samples, layer='s')
        cols, rows = np.floor(~UTM @ np.stack([frame.geometry.x, frame.geometry.y]))
        values = truth[rows.astype(int), cols.astype(int)]
        frame['reference'] = np.array(['a', 'B', 'c'])[values]
        frame.to_file(tmp_path / 't.gpkg')
        found = assess(mask, tmp_path / 't.gpkg')
        share = np.bincount(truth.ravel()) / truth.size
        inside += int(
            (
                np.abs(found.accuracy.area.value - share)
                < found.accuracy.area.half_width
            ).sum()
        )
    # 18 intervals of 95 %
    assert inside >= 15


def test_numbers_of_samples_are_those_of_the_map(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(20, 20))
    samples = tmp_path / 's.gpkg'
    draw_samples(mask, samples, size=60)
    frame = gpd.read_file(samples)
    frame['reference'] = 0
    frame.to_file(samples, layer='other', engine='pyogrio')
    frame.to_file(tmp_path / 'n.gpkg')
    said = r'column reference holds numbers\. .* map: 0 as \w+, 1 as '
    with pytest.warns(LabelWarning, match=said):
        assess(mask, tmp_path / 'n.gpkg')


def test_a_table_of_points_is_read_as_one_of_labels_is(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', random_classes(20, 20))
    draw_samples(mask, tmp_path / 's.gpkg', size=60)
    frame = gpd.read_file(tmp_path / 's.gpkg')
    with rasterio.open(mask) as raster:
        names = class_names(raster)
        xy = [*zip(frame.geometry.x, frame.geometry.y, strict=True)]
        frame['reference'] = [names[int(value[0])] for value in raster.sample(xy)]
    frame.to_file(tmp_path / 'p.gpkg')
    degrees = frame.to_crs(4326).geometry
    table = frame[['reference']].assign(lon=degrees.x, lat=degrees.y)
    table.to_csv(tmp_path / 't.csv', index=False)
    found = assess(mask, tmp_path / 't.csv', design='simple')
    expected = assess(mask, tmp_path / 'p.gpkg', design='simple')
    np.testing.assert_array_equal(found.counts, expected.counts)
    table.drop(columns='lat').to_csv(tmp_path / 'u.csv', index=False)
    with pytest.raises(LabelError, match='no two columns of coordinates'):
        assess(mask, tmp_path / 'u.csv', design='simple')


def test_classes_of_a_map_without_names_and_samples_as_numbers(tmp_path: Path) -> None:
    values = np.zeros((4, 4), np.uint8)
    values[2:] = 7
    with rasterio.open(
        tmp_path / 'm.tif',
        'w',
        driver='GTiff',
        dtype='uint8',
        count=1,
        height=4,
        width=4,
    ) as raster:
        raster.write(values, 1)
    frame = gpd.GeoDataFrame(
        {'class': [0, 7, 7, 7.0]},
        geometry=gpd.points_from_xy([0.5, 1.5, 2.5, 3.5], [0.5, 1.5, 2.5, 3.5]),
    )
    frame.to_parquet(tmp_path / 's.parquet')
    found = assess(tmp_path / 'm.tif', tmp_path / 's.parquet', column='class')
    assert found.names == ['0', '7']
    assert found.counts.tolist() == [[1, 1], [0, 2]]
    assert found.unit == 'pixels'
    assert found.areas.value.tolist() == [4, 12]


def test_mistakes_in_samples(run: Run, tmp_path: Path) -> None:
    values = MAP.copy()
    values[3, 4] = 255
    mask = write_classes(tmp_path / 'm.tif', values, names=OLOFSSON)
    good = [[0, 0], [10, 10]]

    def answer(
        pixels: list[list[int]], reference: list[object]
    ) -> tuple[int, str, str]:
        points = write_points(tmp_path / 's.gpkg', np.array(pixels), reference)
        return run('assess', mask, points, '--json', tmp_path / 'a.json')

    refused(answer([*good, [3, 4]], ['forest gain'] * 3), '1 sample (3) lies on nodata')
    refused(answer([[-1, 0], [0, 80]], ['x', 'x']), 'All samples of', 'lie outside')
    inside = answer([*good, [-1, 0], [0, 80]], ['forest gain'] * 4)
    refused(inside, '2 samples (3, 4) lie outside')
    refused(
        answer(good, ['forest gain', 'forst gain']),
        "sample 2: 'forst gain' is not a class", "Did you mean 'forest gain'?",
    )  # fmt: skip
    refused(answer(good, [None, ' ']), 'column reference is empty')
    refused(
        run('assess', mask, tmp_path / 's.gpkg', '--column', 'refrence'),
        "no column 'refrence'", "Did you mean 'reference'?",
    )  # fmt: skip
    refused(run('assess', mask, tmp_path / 'x.gpkg'), 'x.gpkg does not exist')
    refused(run('assess', mask, mask), 'is a raster, expected points', 'first')
    frame = gpd.read_file(tmp_path / 's.gpkg').buffer(1).to_frame('geometry')
    frame['reference'] = 'a'
    frame.to_file(tmp_path / 'p.gpkg')
    refused(run('assess', mask, tmp_path / 'p.gpkg'), 'Polygon', 'expected points')
    assert not (tmp_path / 'a.json').exists()


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', MAP, names=OLOFSSON)
    rows = [np.argwhere(MAP == value)[:2] for value in (0, 2, 3)]
    pixels = np.concatenate(rows)
    labels: list[object] = ['deforestation', None, *['stable forest'] * 4]
    points = write_points(tmp_path / 's.gpkg', pixels, labels)
    with pytest.warns(LabelWarning) as caught:
        found = assess(mask, points)
    texts = ' '.join(str(each.message) for each in caught)
    assert "'forest gain' has no sample: its 1 hectares, 1.5% of the map" in texts
    assert "'deforestation' has 1 sample" in texts
    assert '1 of 6 samples have no class' in texts
    # nothing is known of the area of a class that no sample has
    assert np.isnan(found.areas.value[OLOFSSON.index('forest gain')])
    known = np.nansum(found.areas.value)
    assert known == pytest.approx(found.sizes[[0, 2, 3]].sum())
    assert content(found)['classes']['forest gain']['area']['value'] is None
    assert 'nan' not in page(found, 'm.tif', 's.gpkg', 'stratified')


def test_a_sample_of_another_map_is_said(tmp_path: Path) -> None:
    mask, _ = paper(tmp_path)
    draw_samples(mask, tmp_path / 'd.gpkg', size=400)
    other = write_classes(tmp_path / 'o.tif', MAP[:, ::-1] % 3, names=OLOFSSON)
    frame = gpd.read_file(tmp_path / 'd.gpkg', layer='d')
    with sqlite3.connect(tmp_path / 'd.gpkg') as database:
        triggers = database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'd'"
        ).fetchall()
        for (name,) in triggers:
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute("UPDATE d SET reference = 'stable forest'")
    assert assess(mask, tmp_path / 'd.gpkg').counts.sum() == len(frame)
    with pytest.warns(LabelWarning, match='drawn from another map'):
        assess(other, tmp_path / 'd.gpkg')
    # a simple random sample belongs to any map
    assert assess(other, tmp_path / 'd.gpkg', design='simple').counts.sum() == len(
        frame
    )


def test_a_sample_that_was_saved_again_is_said(tmp_path: Path) -> None:
    mask, _ = paper(tmp_path)
    draw_samples(mask, tmp_path / 'd.gpkg', size=400)
    frame = gpd.read_file(tmp_path / 'd.gpkg', layer='d')
    frame.assign(reference='stable forest').to_file(tmp_path / 'again.gpkg')
    with pytest.warns(Note, match='does not record its map any more'):
        assess(mask, tmp_path / 'again.gpkg')


def test_a_sample_of_one_part_of_a_map_is_said(tmp_path: Path) -> None:
    """Its record is lost, so that only its extent tells that the map was larger."""
    part = np.random.default_rng(0).integers(0, 3, (40, 40)).astype(np.uint8)
    whole = np.pad(part, (0, 60), mode='symmetric')
    small = write_classes(tmp_path / 'p.tif', part, names=['a', 'b', 'c'])
    large = write_classes(tmp_path / 'w.tif', whole, names=['a', 'b', 'c'])
    for name, mask in (('d', small), ('e', large)):
        draw_samples(mask, tmp_path / f'{name}.gpkg', size=60)
        frame = gpd.read_file(tmp_path / f'{name}.gpkg', layer=name)
        frame.assign(reference='a').to_file(tmp_path / f'{name}{name}.gpkg')
    for design in ('stratified', 'simple'):
        with pytest.warns(LabelWarning, match=r'lie in one part of .*w\.tif'):
            assess(large, tmp_path / 'dd.gpkg', design=design)
    for mask, name in ((small, 'dd'), (large, 'ee')):
        with warnings.catch_warnings():
            warnings.simplefilter('error', LabelWarning)
            assess(mask, tmp_path / f'{name}.gpkg')


def test_an_unknown_design_is_refused(tmp_path: Path) -> None:
    mask, points = paper(tmp_path)
    with pytest.raises(SettingError, match="Unknown design 'random', expected one of"):
        assess(mask, points, design='random')  # type: ignore[arg-type]


def test_copies_of_samples_are_said(tmp_path: Path) -> None:
    mask, points = paper(tmp_path)
    once = gpd.read_file(points).drop_duplicates('geometry')
    once.to_file(tmp_path / 'once.gpkg')
    with warnings.catch_warnings():
        warnings.simplefilter('error', LabelWarning)
        assess(mask, tmp_path / 'once.gpkg')
    pd.concat([once, once[:2]]).to_file(tmp_path / 'twice.gpkg')
    with pytest.warns(LabelWarning, match=r'2 samples \(.*\) lie on the pixel'):
        assess(mask, tmp_path / 'twice.gpkg')


def test_degrees_are_weighted_by_area(tmp_path: Path) -> None:
    """A pixel in the north covers less ground than one in the south."""
    values = np.repeat([[0], [1]], 30, axis=0).astype(np.uint8)
    tall = Affine(1, 0, 0, 0, -1, 60)
    mask = write_classes(tmp_path / 'm.tif', values, 'EPSG:4326', tall, ['n', 's'])
    frame = gpd.GeoDataFrame(
        {'reference': list('nnssss')},
        geometry=gpd.points_from_xy([0.5] * 6, [50.5, 40.5, 20.5, 10.5, 5.5, 1.5]),
        crs='EPSG:4326',
    )
    frame.to_file(tmp_path / 's.gpkg')
    share = assess(mask, tmp_path / 's.gpkg').accuracy.area.value
    # sines of latitude
    assert share[1] == pytest.approx(np.sin(np.pi / 6) / np.sin(np.pi / 3), rel=5e-3)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    mask, samples = paper(tmp_path)
    samples.write_bytes(samples.read_bytes()[:3000])
    with pytest.raises(LabelError, match='Cannot read'):
        assess(mask, samples)


def test_clusters_have_wider_intervals(run: Run, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # errors fill whole blocks of 10 px
    truth = np.kron(rng.integers(0, 2, (20, 20)), np.ones((10, 10), int))
    wrong = np.kron(rng.random((20, 20)) < 0.2, np.ones((10, 10), bool))
    mask = write_classes(
        tmp_path / 'm.tif',
        np.where(wrong, 1 - truth, truth).astype('u1'),
        names=['a', 'b'],
    )
    path = tmp_path / 's.gpkg'
    words = [mask, '--output', path, '--size', 300, '--clusters', 30, '--block', 10]
    assert run('sample', *words)[0] == 0
    frame = gpd.read_file(path, layer='s')
    cols, rows = ~UTM @ (frame.geometry.x, frame.geometry.y)
    found = truth[rows.astype(int), cols.astype(int)]
    frame['reference'] = np.array(['a', 'b'])[found]
    info = pyogrio.read_info(path, layer='s')
    pyogrio.write_dataframe(
        frame, path, layer='s', dataset_metadata=info['dataset_metadata']
    )
    refused(run('assess', mask, path), 'was drawn in clusters. Pass --design cluster')
    # also once another program has dropped what sample wrote about the map
    frame.to_file(tmp_path / 'again.gpkg')
    again = run('assess', mask, tmp_path / 'again.gpkg')
    refused(again, 'was drawn in clusters. Pass --design cluster')
    status, out, err = run('assess', mask, path, '--design', 'cluster')
    assert status == 0, err
    assert 'overall accuracy' in out
    cluster = assess(mask, path, design='cluster').accuracy
    simple = estimate(assess(mask, path, design='cluster').counts, np.ones(2), 'simple')
    assert cluster.overall.value == pytest.approx(simple.overall.value, abs=0.02)
    # ten samples of a block are one
    assert cluster.overall.half_width[0] > 2.5 * simple.overall.half_width[0]
    lone = write_points(tmp_path / 'lone.gpkg', np.array([[0, 0]]), ['a'])
    refused(run('assess', mask, lone, '--design', 'cluster'), "a column 'cluster'")


def test_few_samples_and_agreement_are_no_certainty(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', MAP, names=OLOFSSON)
    numbers = (23, 1, 5, 40)
    wanted = zip(range(4), numbers, strict=True)
    pixels = [np.argwhere(MAP == v)[:1].repeat(n, axis=0) for v, n in wanted]
    labels: list[object] = np.repeat(OLOFSSON, numbers).tolist()
    labels[-1] = OLOFSSON[0]
    points = write_points(tmp_path / 's.gpkg', np.concatenate(pixels), labels)
    with pytest.warns(LabelWarning, match=r'^stable forest \(5\): fewer than 10'):
        found = assess(mask, points)
    note = lines(found)[-1]
    # 0.95 of samples of 23 have another class if 12 % of the pixels do
    assert 1 - (1 - 0.122) ** 23 == pytest.approx(0.95, abs=1e-3)
    assert note.startswith('± 0 is no certainty where all samples agree.')
    assert note.endswith(
        ': deforestation (23 samples, 12%), stable forest (5 samples, 45%).'
    )
    assert note in page(found, 'm.tif', 's.gpkg', 'stratified')


def test_a_class_in_one_cluster_has_no_interval(tmp_path: Path) -> None:
    values = np.zeros((10, 10), np.uint8)
    values[0, 9] = values[0, 8] = 1
    mask = write_classes(tmp_path / 'm.tif', values, names=['a', 'b'])
    pixels = np.array([[0, 0], [0, 1], [5, 1], [5, 2], [0, 9], [0, 8]])
    points = write_points(tmp_path / 's.gpkg', pixels, list('abaaba'))
    frame = gpd.read_file(points)
    frame.assign(cluster=[1, 1, 2, 2, 3, 3]).to_file(points)
    with pytest.warns(LabelWarning) as caught:
        found = assess(mask, points, design='cluster')
    texts = [str(each.message) for each in caught]
    assert 'samples of b lie in one cluster alone' in ' '.join(texts)
    users = found.accuracy.users
    assert users.value == pytest.approx([0.75, 0.5])
    assert np.isnan(users.half_width[1])
    assert lines(found)[2].split()[-9:-6] == ['0.500', '±', '-']
    row = content(found)['classes']['b']['users_accuracy']
    assert row == {'value': 0.5, 'ci95': None}
    page(found, 'm.tif', 's.gpkg', 'cluster')


@pytest.mark.parametrize('design', ['stratified', 'simple'])
def test_a_class_that_is_not_on_the_map_counts_as_wrong(
    tmp_path: Path, design: Design
) -> None:
    values = np.zeros((20, 20), np.uint8)
    values[:, 10:] = 1
    mask = write_classes(tmp_path / 'm.tif', values, names=['a', 'Other'])
    pixels = np.concatenate([np.argwhere(values == v)[:20] for v in (0, 1)])
    labels: list[object] = [*['a'] * 15, *[OTHER] * 5, *['other'] * 20]
    points = write_points(tmp_path / 's.gpkg', pixels, labels)
    found = assess(mask, points, design=design)
    assert found.names == ['a', 'Other', OTHER]
    assert found.counts.tolist() == [[15, 0, 5], [0, 20, 0], [0, 0, 0]]
    document = content(found)
    assert document['overall_accuracy']['value'] == pytest.approx(7 / 8)
    rows = document['classes']
    assert rows['a']['users_accuracy']['value'] == 3 / 4
    assert rows[OTHER]['users_accuracy']['value'] is None
    assert rows[OTHER]['producers_accuracy']['value'] == 0
    # an eighth of 4 ha, and ± from the samples of a
    assert rows[OTHER]['area']['value'] == pytest.approx(0.5, rel=1e-3)
    assert rows[OTHER]['area']['ci95'] > 0
    assert OTHER in page(found, 'm.tif', 's.gpkg', design)
    # without a class of that name, the short word will do
    plain = write_classes(tmp_path / 'p.tif', values, names=['a', 'b'])
    short = ['a'] * 15 + ['OTHER'] * 5 + ['b'] * 20
    points = write_points(tmp_path / 't.gpkg', pixels, [*short])
    assert assess(plain, points).counts.tolist() == found.counts.tolist()


def test_points_of_another_origin_are_told(tmp_path: Path) -> None:
    mask = write_classes(tmp_path / 'm.tif', MAP, names=OLOFSSON)
    pixels = np.argwhere(MAP != 255)[::97]
    reference = [OLOFSSON[MAP[row, col]] for row, col in pixels]
    points = write_points(tmp_path / 's.gpkg', pixels, reference)
    with pytest.warns(Note, match=r's\.gpkg was not written by sample'):
        assess(mask, points)
    with warnings.catch_warnings():
        warnings.simplefilter('error', Note)
        assess(mask, points, design='simple')
