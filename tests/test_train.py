"""``torchgeo-ctm train``: from drawn polygons to a checkpoint, without a configuration."""

import sqlite3
import warnings
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from tests.commands import Run, TorchGeoMain, refused
from tests.conftest import WriteScene
from tests.fakes.land_cover import (
    BANDS,
    CLASSES,
    LandCover,
    write_land_cover,
    write_points,
    write_raster,
    write_squares,
)
from torchgeo_ctm.datasets.synthetic import render
from torchgeo_ctm.errors import LabelWarning, OutputError, SettingError
from torchgeo_ctm.legends import class_color, usual_colors
from torchgeo_ctm.prediction import predict_scene
from torchgeo_ctm.scenes.sources import band_names
from torchgeo_ctm.train import plan, train

pytestmark = pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.LabelWarning')


@pytest.fixture(scope='session')
def ground(tmp_path_factory: pytest.TempPathFactory) -> LandCover:
    """A scene of 256 px."""
    return write_land_cover(tmp_path_factory.mktemp('ground'), 'scene', 32, 0, 256)


def drawn(ground: LandCover, each: int = 3, shrink: float = 0.9) -> gpd.GeoDataFrame:
    """Polygons inside the largest patches of each class, in degrees."""
    rows = []
    for number, name in enumerate(CLASSES):
        room = np.pad(ground.classes == number, 1)
        for _ in range(each):
            depth: NDArray[Any] = distance_transform_edt(room)
            row, col = np.unravel_index(int(depth.argmax()), room.shape)
            radius = float(depth.max())
            down, across = np.ogrid[: len(room), : len(room)]
            room &= (down - row) ** 2 + (across - col) ** 2 > (2 * radius) ** 2
            x, y = ground.transform @ (col - 0.5, row - 0.5)
            rows.append((name, shapely.Point(x, y).buffer(10 * radius * shrink, 3)))
    names, shapes = zip(*rows, strict=True)
    return gpd.GeoDataFrame({'class': names}, geometry=[*shapes], crs=ground.crs)


def save(frame: gpd.GeoDataFrame, path: Path) -> Path:
    frame.to_crs('EPSG:4326').to_file(path)
    return path


@pytest.fixture
def labels(ground: LandCover, tmp_path: Path) -> Path:
    """Twelve drawn polygons."""
    return save(drawn(ground), tmp_path / 'polygons.gpkg')


def weights(path: Path) -> dict[str, torch.Tensor]:
    content = torch.load(path, map_location='cpu', weights_only=False)
    found: dict[str, torch.Tensor] = content['state_dict']
    return found


@pytest.mark.filterwarnings('error:Checkpoint directory')
def test_twelve_polygons_make_a_map(
    run: Run, ground: LandCover, labels: Path, tmp_path: Path
) -> None:
    model, mask = tmp_path / 'model.ckpt', tmp_path / 'mask.tif'
    arguments = ['--labels', labels, '--output', model, '--accelerator', 'cpu']
    status, out, _ = run('train', ground.scene, *arguments, '--steps', 40)
    assert status == 0
    assert '12 polygons (Croplands 3, Forest 3, Urban/Built-up 3, Water 3)' in out
    assert 'held out: nothing' in out
    shifted = predict_scene(
        ground.scene,
        model,
        tmp_path / 'shifted.tif',
        accelerator='cpu',
        progress=False,
        stride=128,
        shifted_grids=True,
    )
    with shifted.open() as raster:
        # an odd multiple of half the 4 px of the local head
        assert int(raster.tags()['STRIDE']) == 130
    predict_scene(ground.scene, model, mask, accelerator='cpu', progress=False)
    with rasterio.open(mask) as raster:
        found = raster.read(1)
    order = np.argsort(np.argsort(CLASSES))
    assert (found == order[ground.classes]).mean() > 0.8


def test_python_takes_paths_of_any_kind(
    ground: LandCover, labels: Path, tmp_path: Path
) -> None:
    made = plan(ground.scene, labels, steps=1, accelerator='cpu')
    assert made == plan([str(ground.scene)], str(labels), steps=1, accelerator='cpu')
    train(made.content, str(tmp_path / 'model.ckpt'), progress=False)
    with pytest.raises(OutputError, match=r'model\.ckpt already exists'):
        train(made, tmp_path / 'model.ckpt', progress=False)
    train(made, tmp_path / 'again.ckpt', progress=False)
    assert (tmp_path / 'model.ckpt').is_file()
    assert (tmp_path / 'again.ckpt').is_file()
    with pytest.raises(SettingError, match='no data, model, seed_everything, trainer,'):
        train({}, tmp_path / 'none.ckpt')


def test_data_in_place_of_files_are_refused(ground: LandCover, labels: Path) -> None:
    frame = gpd.read_file(labels)
    with pytest.raises(SettingError, match=r'labels\[0\] is of type GeoDataFrame, exp'):
        plan(ground.scene, frame)
    with pytest.raises(
        SettingError, match='scenes is of type ndarray, expected a path'
    ):
        plan(ground.classes, labels)  # type: ignore[arg-type]
    none: list[Any] = [[], iter([])]
    for given in none:
        with pytest.raises(SettingError, match='scenes is empty'):
            plan(given, labels)
    with pytest.raises(SettingError, match=r'scenes\[0\] is of type int, expected a'):
        plan({'a.tif', 5}, labels)  # type: ignore[arg-type]


def test_torchgeo_repeats_the_training(
    run: Run,
    torchgeo_main: TorchGeoMain,
    ground: LandCover,
    labels: Path,
    tmp_path: Path,
) -> None:
    arguments = ['--labels', labels, '--output', tmp_path / 'model.ckpt', '--seed', 3]
    arguments += ['--accelerator', 'cpu', '--config_out', tmp_path / 'model.yaml']
    assert run('train', ground.scene, *arguments, '--steps', 3)[0] == 0
    torchgeo_main('fit', '--config', tmp_path / 'model.yaml')
    [again] = (tmp_path / 'output').rglob('*.ckpt')
    ours, theirs = weights(tmp_path / 'model.ckpt'), weights(again)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_small_polygons_get_small_windows(ground: LandCover, tmp_path: Path) -> None:
    path = save(drawn(ground, 2, 0.6), tmp_path / 'polygons.gpkg')
    content, reasons = plan([str(ground.scene)], str(path))
    assert content['model']['init_args']['img_size'] in (8, 16)
    assert content['data']['init_args']['shares'] == [1.0, 0.0, 0.0]
    assert len(reasons) == 5


def test_tagged_squares_get_windows_of_their_size(
    ground: LandCover, tmp_path: Path
) -> None:
    path = write_squares(tmp_path / 'squares.gpkg', [ground], 32, 8)
    data = plan([str(ground.scene)], str(path), 'tags').content
    assert data['data']['init_args']['labels']['init_args']['whole'] is True
    assert data['model']['init_args']['img_size'] == 32


def test_many_labels_are_held_out(tmp_path: Path) -> None:
    ground = write_land_cover(tmp_path, 'large', 32, 0, 512, 60)
    path = write_squares(tmp_path / 'squares.gpkg', [ground], 16, 0, share=0.3)
    found = plan([str(ground.scene)], str(path), 'tags', window=16)
    assert found.content['data']['init_args']['shares'] == [0.8, 0.2, 0.0]
    [kept] = found.content['trainer']['callbacks']
    assert kept['init_args']['monitor'] == 'val_balanced_bce'
    assert 'a fifth' in found.reasons[2]


def test_points_and_tables_are_labels_too(ground: LandCover, tmp_path: Path) -> None:
    points = write_points(tmp_path / 'points.csv', [ground], 40, 0)
    content = plan([str(ground.scene)], str(points), 'land cover').content
    section = content['data']['init_args']['labels']
    assert section['class_path'].endswith('PointLabels')
    # of a larger window a point says little
    assert content['model']['init_args']['img_size'] == 16
    table = tmp_path / 'table.csv'
    other = write_land_cover(tmp_path, 'other', 32, 1, 64)
    table.write_text('tile,class\nscene,Forest;Water\nother,Water\n')
    content = plan([str(ground.scene), str(other.scene)], str(table)).content
    section = content['data']['init_args']['labels']
    assert section['class_path'].endswith('TableLabels')
    assert section['init_args']['id_field'] == 'tile'
    assert content['model']['init_args']['img_size'] == 64


@pytest.mark.parametrize('count', [12, 40, 254])
@pytest.mark.parametrize('listed', [False, True])
def test_no_two_classes_have_one_color(count: int, listed: bool) -> None:
    names = ['Water', 'Trees', *(f'crop {index}' for index in range(2, count))]
    colors = [class_color(i) for i in range(count)] if listed else usual_colors(names)
    channels = np.array([list(bytes.fromhex(color[1:])) for color in colors])
    apart = np.linalg.norm(channels[:, None] - channels[None], axis=2)
    assert apart[~np.eye(count, dtype=bool)].min() > 15


def test_classes_have_the_colors_that_maps_usually_give_them() -> None:
    names = [
        'Dark forest',
        'bright forest',
        'Water',
        'Rice',
        'Urban/Built-up',
        'x',
        'y',
    ]
    colors = usual_colors(names)
    assert colors[0] == usual_colors(['Trees'])[0] != colors[1]
    assert colors[2] == usual_colors(['Permanent water bodies'])[0]
    assert colors[4] == usual_colors(['built'])[0]
    # "ice" is in "rice", but no word of it
    assert colors[3] != usual_colors(['Snow/Ice'])[0]
    assert len(set(colors)) == len(names)


@pytest.mark.parametrize(
    'names',
    [
        [
            'Gewässer',
            'Nadelwald',
            'Grünland',
            'Salzwiese',
            'Acker',
            'Siedlung',
            'Strand',
        ],
        ['Eau', 'Forêt', 'Prairie', 'Marais', 'Cultures', 'Bâti', 'Plage'],
        ['Río', 'Bosque', 'Pradera', 'Humedal', 'Cultivos', 'Ciudad', 'Suelo desnudo'],
        ['Acqua', 'Boschi', 'Prati', 'Palude', 'Coltivi', 'Edificato', 'Roccia'],
        ['Água', 'Floresta', 'Pastagem', 'Zona húmida', 'Agrícola', 'Cidade', 'Areia'],
    ],
    ids=['de', 'fr', 'es', 'it', 'pt'],
)
def test_classes_of_other_languages_have_the_same_colors(names: list[str]) -> None:
    english = ['water', 'forest', 'grass', 'wetland', 'crops', 'built', 'beach']
    assert usual_colors(names) == usual_colors(english)
    # parts of these words are words of another language
    assert usual_colors(['marsh', 'seed', 'merge']) == [
        usual_colors(['wetland'])[0],
        *usual_colors(['x', 'y']),
    ]


def test_edits_of_an_open_geopackage_count(ground: LandCover, labels: Path) -> None:
    # QGIS keeps a file open in this mode, and what was saved last is in a second file
    opened = sqlite3.connect(labels)
    opened.execute('PRAGMA journal_mode = WAL')
    for name in ('IsEmpty', 'MinX', 'MaxX', 'MinY', 'MaxY'):
        opened.create_function(f'ST_{name}', 1, lambda shape: 0)
    opened.execute("UPDATE polygons SET class = 'Marsh' WHERE class = 'Water'")
    opened.commit()
    assert labels.with_name('polygons.gpkg-wal').exists()
    names = plan([str(ground.scene)], str(labels)).content['model']['init_args']
    opened.close()
    assert 'Marsh' in names['class_names']


def test_another_offset_is_seen(
    run: Run, ground: LandCover, labels: Path, tmp_path: Path
) -> None:
    """In the scene that is mapped, and among those of training."""
    with rasterio.open(ground.scene) as raster:
        profile, names = raster.profile, raster.descriptions
        values = raster.read()
    for name, added in (('four.tif', 0), ('more.tif', 1000)):
        with rasterio.open(tmp_path / name, 'w', **profile) as raster:
            raster.write(values + added)
            raster.descriptions = names
    arguments = ['--labels', labels, '--accelerator', 'cpu', '--steps', 3]
    train = ['train', tmp_path / 'four.tif', *arguments]
    status, _, err = run(*train, '--output', tmp_path / 'model.ckpt')
    assert status == 0
    assert 'offset' not in err
    status, _, err = run(
        *train[:2], tmp_path / 'more.tif', *train[2:], '--output', tmp_path / 'b.ckpt'
    )
    assert 'more.tif: dark pixels are about 1,000 higher than those of' in err
    map_it = ['--checkpoint', tmp_path / 'model.ckpt', '--accelerator', 'cpu']
    for name, said in (('four.tif', False), ('more.tif', True)):
        output = tmp_path / f'map_{name}'
        status, _, err = run('predict', tmp_path / name, *map_it, '--output', output)
        assert status == 0
        assert (
            'in every band, as with another offset. Pass --offset -1000.' in err
        ) == said


def test_another_offset_is_seen_elsewhere(
    run: Run, write_scene: WriteScene, tmp_path: Path
) -> None:
    """In a scene whose dark pixels are others, by its B10."""
    pixels = render(96, 96, 1)[0]
    # haze, which leaves B10 alone
    haze = np.linspace(700, 0, 13)[:, None, None] * (np.arange(13) != 10)[:, None, None]
    here = write_scene('here.tif', pixels=pixels.astype(np.uint16))
    far = write_scene('far.tif', pixels=(pixels + haze + 1000).astype(np.uint16))
    with rasterio.open(here) as raster:
        left, top = raster.transform @ (0, 0)
        crs, side = raster.crs, 16 * raster.res[0]
    shapes = [shapely.box(x, -y - 1, x + 1, -y) for y, x in np.ndindex(6, 6)]
    names = [('Forest', 'Water')[number % 2] for number in range(36)]
    frame = gpd.GeoDataFrame({'class': names}, geometry=shapes, crs=crs)
    frame.geometry = frame.affine_transform([side, 0, 0, side, left, top])
    labels = save(frame, tmp_path / 'squares.gpkg')
    more = ['--accelerator', 'cpu', '--steps', 1, '--output', tmp_path / 'b.ckpt']
    status, _, err = run('train', here, far, '--labels', labels, *more)
    assert status == 0, err
    assert 'far.tif: dark pixels are about 1,000 higher than those of' in err


def test_other_units_offsets_and_scenes_given_twice_are_told(
    run: Run, ground: LandCover, labels: Path, tmp_path: Path
) -> None:
    with rasterio.open(ground.scene) as raster:
        profile, names = raster.profile | {'dtype': 'float32'}, raster.descriptions
        values = raster.read().astype(np.float32)
    for name, changed in (('unit.tif', values / 10_000), ('low.tif', values - 3000)):
        with rasterio.open(tmp_path / name, 'w', **profile) as raster:
            raster.write(changed)
            raster.descriptions = names
    more = ['--labels', labels, '--accelerator', 'cpu', '--steps', 1, '--overwrite']
    for names, said in (
        ((ground.scene, tmp_path / 'unit.tif'), 'Give both the same unit.'),
        ((tmp_path / 'low.tif',), 'low.tif: dark pixels are far below 0'),
        ((ground.scene, ground.scene), 'is given more than once.'),
    ):
        status, _, err = run('train', *names, *more, '--output', tmp_path / 'm.ckpt')
        assert status == 0, err
        assert said in err


@pytest.mark.parametrize(
    ('names', 'said'),
    [
        (('tree', 'trees'), "'tree' and 'trees'. Write one name"),
        (('watr', 'water'), "'water' and 'watr'. Write one name"),
        (('trees', 'water', 'trees/water'), "class 'trees/water' beside its parts"),
        (('trees', 'water', 'bare land', 'built-up'), ''),
    ],
)
def test_classes_that_may_be_one_are_told(
    ground: LandCover, tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    frame = drawn(ground)
    frame['class'] = [names[number % len(names)] for number in range(len(frame))]
    path = save(frame, tmp_path / 'named.gpkg')
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        plan([str(ground.scene)], str(path), window=16)
    spelled = [str(w.message) for w in caught if ' class' in str(w.message)]
    assert any(said in text for text in spelled) if said else not spelled


def test_a_scene_is_read_as_the_options_say(
    run: Run,
    torchgeo_main: TorchGeoMain,
    ground: LandCover,
    labels: Path,
    tmp_path: Path,
) -> None:
    """Unnamed bands, an offset and a nodata value that the file does not tell."""
    plain, bare = tmp_path / 'plain', tmp_path / 'bare'
    with rasterio.open(ground.scene) as raster:
        profile, names = raster.profile, [*raster.descriptions]
        values = raster.read()
    values[:, :9, :9] = 0
    profile.pop('nodata', None)
    for folder, added in ((plain, 0), (bare, 1000)):
        folder.mkdir()
        filled = np.where(values == 0, 0, values + added)
        with rasterio.open(folder / 'scene.tif', 'w', **profile) as raster:
            raster.write(filled.astype(values.dtype))
    reading = ['--scene_bands', ','.join(names), '--nodata', 0]

    def train(folder: Path, *more: object) -> dict[str, torch.Tensor]:
        model, config = folder / 'model.ckpt', folder / 'model.yaml'
        output = ['--output', model, '--config_out', config, '--accelerator', 'cpu']
        command = ['train', folder / 'scene.tif', '--labels', labels, '--steps', 3]
        status, _, err = run(*command, *output, *reading, *more)
        assert status == 0, err
        return weights(model)

    one, other = train(plain), train(bare, '--offset', -1000)
    assert all(torch.equal(one[key], other[key]) for key in one)
    torchgeo_main('fit', '--config', bare / 'model.yaml')
    [again] = (tmp_path / 'output').rglob('*.ckpt')
    assert all(torch.equal(one[key], weights(again)[key]) for key in one)


def test_one_outline_with_two_classes_is_told(
    ground: LandCover, tmp_path: Path
) -> None:
    frame = drawn(ground)
    frame = pd.concat([frame, frame.iloc[[0]].assign(**{'class': 'Water'})])
    path = save(frame, tmp_path / 'twice.gpkg')
    said = 'rows 1 and 13 have one outline, but the classes .* and Water'
    with pytest.warns(LabelWarning, match=said):
        plan([str(ground.scene)], str(path))


def test_one_polygon_of_a_class_is_warned_about(
    ground: LandCover, tmp_path: Path
) -> None:
    frame = drawn(ground)
    path = save(frame.drop(index=[0, 1]), tmp_path / 'few.gpkg')
    with pytest.warns(LabelWarning, match='one polygon of Forest'):
        plan([str(ground.scene)], str(path))


def test_bad_input_is_one_line(
    run: Run, ground: LandCover, labels: Path, tmp_path: Path
) -> None:
    output = tmp_path / 'model.ckpt'

    def train(path: Path, *more: object, scene: object = ground.scene) -> Any:
        return run('train', scene, '--labels', path, '--output', output, *more)

    frame = drawn(ground)
    far = frame.set_geometry(frame.translate(1e5, 0))
    empty = frame.assign(**{'class': None})
    small = frame.set_geometry(frame.centroid.buffer(20))
    name = tmp_path / 'bad.gpkg'
    refused(train(labels, '--field', 'clas'), "no column 'clas'", "'class'?")
    remarks = frame.rename(columns={'class': 'Bemerkung'})
    refused(train(save(remarks, name)), 'of: Bemerkung. Pass its name as --field.')
    lines = frame.set_geometry(frame.boundary)
    refused(train(save(lines, name)), 'features are lines (draw polygons for labels)')
    frame.to_file(name, layer='alt')
    frame.to_file(name, layer='neu')
    refused(train(name), 'several layers, expected --layer one of: ')
    name.unlink()
    refused(train(tmp_path / 'polygon.gpkg'), 'does not exist', 'polygons.gpkg')
    refused(train(save(far, name)), 'touch none of the 1 scenes')
    refused(train(save(frame[:3], name)), 'one class only')
    refused(train(save(empty, name)), 'no row names a class')
    refused(train(save(small, name)), 'No window of 8 px shows Croplands')
    refused(train(labels, '--window', 20), 'Did you mean 16?')
    refused(train(labels, '--steps', 0), '--steps 0')
    refused(train(labels, scene=tmp_path / 'no.tif'), 'no.tif does not exist')
    with rasterio.open(ground.scene) as raster:
        pixels = raster.read()
    other = write_raster(
        tmp_path / 'other.tif',
        pixels[:2],
        ground.crs,
        ground.transform,
        descriptions=BANDS[:2],
    )
    result = run('train', ground.scene, other, '--labels', labels, '--output', output)
    refused(result, 'missing: B08, B11')
    assert band_names(other) == [*BANDS[:2]]
    renamed = labels.rename(tmp_path / 'labels.ckpt')
    refused(
        run(
            'train',
            ground.scene,
            '--labels',
            renamed,
            '--output',
            renamed,
            '--overwrite',
        ),
        'is the input itself',
    )
    labels = renamed.rename(labels)
    assert not output.exists()
    output.write_text('kept')
    refused(train(labels), 'already exists')
    assert output.read_text() == 'kept'
    assert not [*tmp_path.glob('.*')]
