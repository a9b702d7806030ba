import pytest

from tests.conftest import tiny_task
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.inference.protocols import (
    ChipPredictor,
    SceneData,
    scene_data,
    scene_predictor,
)


def test_our_classes_satisfy_them() -> None:
    # mypy compares signatures, the functions compare names
    predictor: ChipPredictor = tiny_task()
    source: SceneData = SceneDataModule('scene.tif')
    assert scene_predictor(predictor) is predictor
    assert scene_data(source) is source


def test_the_network_may_be_known_to_getattr_alone() -> None:
    # the submodules of a torch module are no attributes of the class or the instance
    task = tiny_task()
    assert 'model' not in vars(task)
    assert scene_predictor(task) is task


def test_anything_else_is_refused() -> None:
    with pytest.raises(SettingError, match='expected a SceneDataModule, got Chip'):
        scene_data(type('ChipModule', (), {})())
    with pytest.raises(SettingError, match='expected a ClassTokenMaskingTask'):
        scene_predictor(SceneDataModule('scene.tif'))
