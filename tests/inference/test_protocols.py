from tests.conftest import tiny_task
from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.inference.protocols import ChipPredictor, ScenePredictor, SceneSource


def test_our_classes_satisfy_them() -> None:
    # mypy compares signatures, isinstance compares names
    predictor: ChipPredictor = tiny_task()
    source: SceneSource = SceneDataModule('scene.tif')
    assert isinstance(predictor, ScenePredictor)
    assert isinstance(predictor, ChipPredictor)
    assert isinstance(source, SceneSource)
    assert not isinstance(source, ScenePredictor)
