"""The second stage: a network that learns the teacher's soft masks, or the teacher."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.conftest import save_task, tiny_task
from torchgeo_ctm.errors import (
    CheckpointError,
    LabelWarning,
    SecondStageWarning,
    SettingError,
)
from torchgeo_ctm.trainers import (
    ClassTokenMaskingTask,
    SoftMaskSegmentationTask,
    load_predictor,
)

LOCAL: dict[str, Any] = {
    'patches': {'head': 'local', 'pooling': 'share', 'share': 0.25},
    'maps': {'source': 'patches', 'presence': 'all'},
}


def teacher() -> ClassTokenMaskingTask:
    """A tiny trained task: its masks say which band is the largest."""
    torch.manual_seed(0)
    return tiny_task(**LOCAL).eval()


def student(given: ClassTokenMaskingTask | None = None, **options: Any) -> Any:
    """A second stage of a teacher."""
    return SoftMaskSegmentationTask(given or teacher(), **options)


def chips(count: int, **more: Tensor) -> list[dict[str, Tensor]]:
    """Batches of two chips."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(count, 2, 13, 32, 32, generator=generator) * 3000
    return [{'image': one} | more for one in image]


def loader(batches: list[dict[str, Tensor]]) -> Any:
    """Batches as a trainer reads them."""
    return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]


def trainer(folder: Path, **options: Any) -> pl.Trainer:
    """A trainer that keeps no files of its own."""
    return pl.Trainer(
        accelerator='cpu',
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        **options,
    )


def test_the_loss_is_the_cross_entropy_against_soft_masks() -> None:
    task = student(jitter=0).eval()
    task.log = lambda *args, **kwargs: None
    [batch] = chips(1)
    loss = task.training_step(batch, 0)
    soft = task.soft_masks(batch)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(2, 32, 32))
    weight = soft.amax(dim=1)
    each = -(soft * task(batch['image']).log_softmax(dim=1)).sum(dim=1)
    torch.testing.assert_close(loss, (each * weight).sum() / weight.sum())


def test_invalid_pixels_teach_nothing() -> None:
    task = student(jitter=0).eval()
    task.log = lambda *args, **kwargs: None
    valid = torch.ones(2, 32, 32, dtype=torch.bool)
    valid[:, :, 16:] = False
    [batch] = chips(1, valid=valid)
    soft = task.soft_masks(batch)[..., :16]
    each = -(soft * task(batch['image'])[..., :16].log_softmax(dim=1)).sum(dim=1)
    weight = soft.amax(dim=1)
    expected = (each * weight).sum() / weight.sum()
    torch.testing.assert_close(task.training_step(batch, 0), expected)


def test_the_teacher_does_not_change(tmp_path: Path) -> None:
    task = student()
    before = {key: value.clone() for key, value in task.teacher.state_dict().items()}
    start = task.model.network.segmentation_head[0].weight.detach().clone()
    trainer(tmp_path, max_epochs=1, enable_checkpointing=False).fit(
        task, loader(chips(3))
    )
    assert not task.teacher.training
    for key, value in task.teacher.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert not torch.equal(start, task.model.network.segmentation_head[0].weight)


def fitted(folder: Path, task: SoftMaskSegmentationTask) -> Path:
    """Train for one epoch, validate on image-level labels, save."""
    label = task.teacher.predict_images(chips(1)[0])['scores'].mean((-2, -1)) > 0.3
    validation = chips(1, label=label.float())
    run = trainer(folder, max_epochs=1)
    run.fit(task, loader(chips(2)), loader(validation))
    path = folder / 'stage2.ckpt'
    run.save_checkpoint(path)
    return path


def test_a_worse_network_keeps_its_teacher(tmp_path: Path) -> None:
    task = student(lr=1e-9)
    head = task.model.network.segmentation_head[0]
    # one class everywhere, whatever the image
    nn.init.zeros_(head.weight)
    head.bias = nn.Parameter(torch.tensor([-20.0, -20.0, 20.0]))
    with pytest.warns(SecondStageWarning, match='not better than its teacher'):
        path = fitted(tmp_path, task)
    assert task.keeps_teacher
    loaded = load_predictor(path)
    [batch] = chips(1)
    expected = student().soft_masks(batch)
    torch.testing.assert_close(loaded.predict_images(batch)['scores'], expected)
    assert loaded.provenance() == teacher().provenance()


def test_a_better_network_maps_together_with_its_teacher(tmp_path: Path) -> None:
    task = student()
    task.criteria['teacher'].compute = lambda: torch.tensor(9.0)
    path = fitted(tmp_path, task)
    assert not task.keeps_teacher
    loaded = load_predictor(path)
    assert isinstance(loaded, SoftMaskSegmentationTask) and not loaded.training
    [batch] = chips(1)
    with torch.no_grad():
        own = task.eval()(batch['image']).softmax(dim=1)
        expected = (own * task.soft_masks(batch)).sqrt()
        expected /= expected.sum(dim=1, keepdim=True)
        torch.testing.assert_close(loaded.predict_images(batch)['scores'], expected)
    assert loaded.class_names == task.teacher.class_names
    assert loaded.provenance()['MAP_SOURCE'] == 'unet resnet18'


def test_a_checkpoint_file_is_a_teacher(tmp_path: Path) -> None:
    path = save_task(teacher(), tmp_path / 'teacher.ckpt')
    task = SoftMaskSegmentationTask(str(path))
    [batch] = chips(1)
    torch.testing.assert_close(task.soft_masks(batch), student().soft_masks(batch))


def test_a_checkpoint_holds_the_arguments_of_its_teacher(tmp_path: Path) -> None:
    """So that torchgeo predict builds the task under any configuration."""
    task = student()
    content = torch.load(fitted(tmp_path, task), weights_only=True)
    arguments = content['hyper_parameters']['teacher']
    again = SoftMaskSegmentationTask(arguments)
    assert again.teacher.class_names == task.teacher.class_names
    again.load_state_dict(content['state_dict'])
    [batch] = chips(1)
    torch.testing.assert_close(again.soft_masks(batch), task.soft_masks(batch))


def test_a_checkpoint_of_the_first_stage_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=1, enable_checkpointing=False)
    first = save_task(teacher(), tmp_path / 'first.ckpt')
    with pytest.raises(CheckpointError, match='not one of SoftMaskSegmentationTask'):
        run.fit(student(), loader(chips(1)), ckpt_path=first)
    path = fitted(tmp_path, student())
    with pytest.raises(
        CheckpointError, match='of SoftMaskSegmentationTask, the second'
    ):
        SoftMaskSegmentationTask(str(path))


def test_a_test_without_a_reference_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path, enable_checkpointing=False)
    with pytest.warns(LabelWarning, match='No test chip has a mask'):
        run.test(student(), loader(chips(1)))


def test_bad_arguments_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match='is not a file'):
        SoftMaskSegmentationTask(str(tmp_path / 'missing.ckpt'))
    with pytest.raises(SettingError, match='jitter must be at least 0, got -1'):
        student(jitter=-1)
    endless = trainer(tmp_path, max_epochs=-1, enable_checkpointing=False)
    with pytest.raises(SettingError, match='Set max_epochs or max_steps'):
        endless.fit(student(), loader(chips(1)))
