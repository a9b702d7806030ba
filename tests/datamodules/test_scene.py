import pytest

from torchgeo_ctm.datamodules import SceneDataModule
from torchgeo_ctm.errors import SettingError


def test_a_scene_without_labels_cannot_be_trained_on() -> None:
    with pytest.raises(SettingError, match='serves predict, not fit'):
        SceneDataModule('scene.tif').setup('fit')
