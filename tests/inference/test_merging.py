"""Classes that are merged when a scene is mapped."""

from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch

from tests.conftest import WriteScene, decisive, save_task, tiny_task
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.inference.masks import class_colors, class_names
from torchgeo_ctm.inference.merging import merging
from torchgeo_ctm.prediction import predict_scene

NAMES = ['Grass', 'Water', 'Crops', 'Arable, wet']
COLORS = ['#00ff00', '#0000ff', '#ffff00', '#ff0000']
QUIET: dict[str, Any] = {'progress': False, 'accelerator': 'cpu'}


def test_a_merged_class_stands_where_its_first_member_stood() -> None:
    found = merging(['Crops+Grass=Open land'], NAMES, COLORS)
    assert found.names == ['Open land', 'Water', 'Arable, wet']
    assert found.colors == ['#00ff00', '#0000ff', '#ff0000']
    assert found.members == [[0, 2], [1], [3]]
    assert found.count == 4


def test_a_merged_score_is_the_largest() -> None:
    scores = torch.rand(4, 5, 5)
    merged = merging(['Grass+Crops=Open'], NAMES, COLORS).scores(scores)
    assert torch.equal(merged[0], torch.maximum(scores[0], scores[2]))
    assert torch.equal(merged[1:], scores[[1, 3]])
    assert merging(None, NAMES, COLORS).scores(scores) is scores


def test_class_names_with_commas_survive_the_command_line() -> None:
    parts = ['Arable', 'wet+Crops=Fields', 'Water=Sea']
    found = merging(parts, NAMES, COLORS)
    assert found.names == ['Grass', 'Sea', 'Fields']


@pytest.mark.parametrize(
    ('merge', 'said'),
    [
        (['Gras+Crops=Open'], "Unknown class 'Gras' in merge.*Did you mean 'Grass'"),
        (['Grass+Crops'], r"Cannot read merge 'Grass\+Crops', expected 'A\+B=NAME'"),
        (['Grass+=Open'], "Cannot read merge 'Grass"),
        (['Grass+Crops='], 'Cannot read merge'),
        (['Grass+Grass=Open'], "'Grass' appears twice in merge"),
        (['Grass=A', 'Grass+Crops=B'], "'Grass' appears twice in merge"),
        (['Grass+Crops=Water'], "would be named 'Water' by merge"),
    ],
)
def test_what_does_not_fit_is_refused(merge: list[str], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        merging(merge, NAMES, COLORS)


@pytest.mark.filterwarnings('ignore::torchgeo_ctm.errors.PresenceWarning')
def test_every_product_has_the_merged_classes(
    tmp_path: Path, write_scene: WriteScene
) -> None:
    task = decisive(tiny_task(presence='probability'))
    checkpoint = save_task(task, tmp_path / 'tiny.ckpt')
    scene = write_scene()
    kinds: dict[str, Any] = {'probabilities': True, **QUIET}
    whole = predict_scene(scene, checkpoint, tmp_path / 'whole.tif', **kinds)
    merge = ['Forest+Urban/Built-up=Land']
    ours = predict_scene(scene, checkpoint, tmp_path / 'ours.tif', merge=merge, **kinds)
    with ours.open() as raster, whole.open() as before:
        assert class_names(raster) == ['Land', 'Water']
        assert class_colors(raster)[:2] == ['#009900', '#1c0dff']
        assert raster.tags()['MERGE'] == merge[0]
        expected = np.array([0, 1, 0], np.uint8)[before.read(1)]
        assert np.array_equal(raster.read(1), expected)
    with rasterio.open(ours.products['probabilities']) as raster:
        assert raster.descriptions == ('share of Land', 'share of Water')
    polygons = geopandas.read_file(ours.products['polygons'])
    assert set(polygons['name']) <= {'Land', 'Water'}
    assert 'Land' in ours.products['style'].read_text()


def test_an_unknown_class_stops_the_command_in_one_line(
    run: Any, checkpoint: Path, write_scene: WriteScene, tmp_path: Path
) -> None:
    status, _, error = run(
        'predict',
        write_scene(),
        '--checkpoint',
        checkpoint,
        '--output',
        tmp_path / 'out.tif',
        '--merge',
        'Forrest+Water=Natural',
    )
    assert status == 2
    assert "Did you mean 'Forest'?" in error
    assert error.count('\n') == 1
    assert not list(tmp_path.glob('*out*'))
