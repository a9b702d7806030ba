"""What lies beside a map that is replaced."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import rasterio

from tests.conftest import WriteScene
from tests.fakes.label_files import write_squares
from torchgeo_ctm.assessment.relabel import relabel
from torchgeo_ctm.errors import FormerProductWarning, OutputError
from torchgeo_ctm.prediction import predict_scene

QUIET: dict[str, Any] = {'progress': False, 'accelerator': 'cpu'}
BARE: dict[str, Any] = {'confidence': False, 'polygons': False, 'picture': False}


def test_the_confidence_of_another_map_goes(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene, output = write_scene(), tmp_path / 'm.tif'
    first = predict_scene(scene, checkpoint, output, probabilities=True, **QUIET)
    with pytest.warns(FormerProductWarning, match=r'm\.gpkg, .*m\.png: not written'):
        predict_scene(scene, checkpoint, output, overwrite=True, **BARE, **QUIET)
    left = {name for name, path in first.products.items() if path.exists()}
    # what may be a file of the user stays
    assert left == {'mask', 'style', 'polygons', 'picture'}


def test_files_that_are_not_ours_stay(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    mask = predict_scene(write_scene(), checkpoint, tmp_path / 'm.tif', **QUIET)
    confidence = mask.products['confidence']
    with rasterio.open(confidence) as raster:
        profile, values = raster.profile, raster.read()
    with rasterio.open(confidence, 'w', **profile) as raster:
        raster.write(values)
    relabel(mask.products['mask'], tmp_path / 'n.tif')
    with pytest.warns(FormerProductWarning, match=r'm_confidence\.tif'):
        relabel(tmp_path / 'n.tif', tmp_path / 'm.tif', overwrite=True)
    assert confidence.exists()


def test_labels_under_the_name_of_a_map_are_never_replaced(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    labels = write_squares(tmp_path / 'm.gpkg', [((0, 0, 10, 10), 'Water')])
    before, scene = labels.read_bytes(), write_scene()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r'm\.gpkg holds something else than'):
            predict_scene(
                scene, checkpoint, tmp_path / 'm.tif', overwrite=overwrite, **QUIET
            )
    assert labels.read_bytes() == before
    assert not (tmp_path / 'm.tif').exists()
    predict_scene(scene, checkpoint, tmp_path / 'm.tif', **BARE, **QUIET)


def test_nothing_is_said_of_what_is_written_anew(
    write_scene: WriteScene, checkpoint: Path, tmp_path: Path
) -> None:
    scene, output = write_scene(), tmp_path / 'm.tif'
    with warnings.catch_warnings():
        warnings.simplefilter('error', FormerProductWarning)
        predict_scene(scene, checkpoint, output, **QUIET)
        predict_scene(scene, checkpoint, output, overwrite=True, **QUIET)
        # nor of files beside a name that is new
        output.unlink()
        predict_scene(scene, checkpoint, output, overwrite=True, **BARE, **QUIET)
