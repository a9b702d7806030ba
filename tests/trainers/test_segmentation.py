from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from torchgeo_ctm.compat import SemanticSegmentation
from torchgeo_ctm.errors import CheckpointError, SettingError
from torchgeo_ctm.scaling import BandScaling
from torchgeo_ctm.trainers import (
    ClassTokenMaskingTask,
    SegmentationPredictor,
    load_predictor,
    load_task,
)

FACTS: dict[str, Any] = {
    'class_names': ['Forest', 'Water', 'Urban/Built-up'],
    'class_colors': ['#009900', '#1c0dff', '#a5a5a5'],
    'bands': ['B04', 'B03', 'B02'],
    'scaling': {'method': 'standard', 'offset': -1000.0},
    'img_size': 32,
}


def network(**kwargs: Any) -> SemanticSegmentation:
    torch.manual_seed(0)
    arguments: dict[str, Any] = {
        'model': 'unet',
        'backbone': 'resnet18',
        'in_channels': 3,
        'num_classes': 3,
        'ignore_index': 255,
    }
    return SemanticSegmentation(**(arguments | kwargs)).eval()


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as Lightning writes it, with what a data module leaves there."""
    path = tmp_path_factory.mktemp('unet') / 'unet.ckpt'
    trainer = pl.Trainer(accelerator='cpu', logger=False, enable_progress_bar=False)
    trainer.strategy.connect(network())
    trainer.save_checkpoint(path)
    content = torch.load(path, weights_only=True)
    torch.save(content | {'AnyDataModule': FACTS}, path)
    return path


def test_scores_are_the_softmax_of_scaled_images(trained: Path) -> None:
    task = load_predictor(trained)
    assert isinstance(task, SegmentationPredictor)
    assert not task.training
    assert task.class_names == FACTS['class_names']
    assert task.class_colors == FACTS['class_colors']
    assert task.bands == tuple(FACTS['bands'])
    image = 1000 + 2000 * torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        predicted = task.predict_step({'image': image}, 0)
        scaled = BandScaling(FACTS['bands'], offset=-1000.0)(image)
        wanted = network()(scaled).softmax(dim=1)
    assert torch.allclose(predicted['scores'], wanted, atol=1e-6)
    assert torch.allclose(predicted['probs'].sum(dim=1), torch.ones(2))
    # so that no window counts as one without a class
    assert (predicted['probs'] > task.decoder.options.threshold).all()
    masks = task.pseudo_masks(predicted['maps'], predicted['probs'], (32, 32))
    assert torch.equal(masks, wanted.argmax(dim=1))


def test_true_labels_allow_their_classes_alone(trained: Path) -> None:
    task = load_predictor(trained).with_options(labels='true')
    image = 2000 * torch.rand(2, 3, 32, 32)
    mask = torch.ones(2, 32, 32, dtype=torch.long)
    mask[1, :16] = 255
    mask[1, 16:] = 2
    label = torch.tensor([[0.0, 1, 0], [0, 0, 1]])
    with torch.no_grad():
        for given in ({'mask': mask}, {'label': label}, {'label': label.argmax(1)}):
            scores = task.predict_step({'image': image, **given}, 0)['scores']
            assert torch.equal(scores.amax(dim=(-2, -1)) > 0, label > 0)
        with pytest.raises(SettingError, match="must have 'label'"):
            task.predict_step({'image': image}, 0)


def test_the_ensemble_does_not_know_directions(trained: Path) -> None:
    task = load_predictor(trained).with_options(ensemble='dihedral')
    image = 2000 * torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        scores = task.predict_step({'image': image}, 0)['scores']
        turned = task.predict_step({'image': image.rot90(1, (-2, -1))}, 0)['scores']
    assert torch.allclose(scores.rot90(1, (-2, -1)), turned, atol=1e-5)


def test_checkpoints_that_are_refused(tmp_path: Path, trained: Path) -> None:
    content = torch.load(trained, weights_only=True)
    path = tmp_path / 'other.ckpt'
    bare = {key: value for key, value in content.items() if key != 'AnyDataModule'}
    nameless = FACTS | {'class_names': []}
    for other in (bare, bare | {'AnyDataModule': nameless}):
        torch.save(other, path)
        with pytest.raises(CheckpointError, match='PseudoMaskDataModule'):
            load_predictor(path)
    for facts in (FACTS | {'bands': ['B04']}, FACTS | {'class_names': ['Sea']}):
        torch.save(content | {'AnyDataModule': facts}, path)
        with pytest.raises(CheckpointError, match='does not fit this version'):
            load_predictor(path)
    torch.save(content | {'state_dict': {}}, path)
    with pytest.raises(CheckpointError, match='does not fit this version'):
        load_predictor(path)
    with pytest.raises(CheckpointError, match='expected one of ClassTokenMasking'):
        load_task(trained)
    torch.save({'state_dict': {}, 'hyper_parameters': {'model': 'unet'}}, path)
    with pytest.raises(CheckpointError, match='another program'):
        load_predictor(path)


def test_class_tokens_come_back_as_they_are(checkpoint: Path) -> None:
    assert isinstance(load_predictor(checkpoint), ClassTokenMaskingTask)
