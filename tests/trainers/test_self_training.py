from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tests.conftest import tiny_task
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.losses import narrowing_share, pool_patch_logits
from torchgeo_ctm.trainers import class_token_masking
from torchgeo_ctm.trainers.self_training import patch_targets, self_training_weight


class Halves(Dataset[dict[str, Tensor]]):
    """Chips that are dark above and bright below some row."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image = torch.full((13, 32, 32), 1000.0)
        image[:, 8 + 2 * index :] = 2500
        generator = torch.Generator().manual_seed(index)
        image += 50 * torch.randn(image.shape, generator=generator)
        return {'image': image, 'label': torch.tensor([1.0, 1.0, 0.0])}


def fit(tmp_path: Path, steps: int = 2, **options: Any) -> Any:
    """Train a tiny task; return it and what it logged."""
    pl.seed_everything(0, verbose=False)
    task = tiny_task(**{'schedule': 'cosine'} | options)
    trainer = pl.Trainer(
        default_root_dir=tmp_path, accelerator='cpu', max_steps=steps, max_epochs=-1,
        logger=False,
        enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, DataLoader(Halves(), batch_size=4))
    return task, trainer.logged_metrics


def test_targets_are_shares_of_pixels_without_gradient() -> None:
    image = torch.stack([Halves()[i]['image'] for i in range(4)])
    logits = torch.randn(4, 3, 4, 4).requires_grad_()
    presence = torch.tensor([[1.0, 1.0, 0.0]]).expand(4, 3)
    targets = patch_targets(logits, presence, image)
    assert targets.shape == (4, 3, 4, 4)
    assert not targets.requires_grad
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4, 4, 4))
    assert (targets[:, 2] == 0).all()


def test_targets_follow_the_bands_where_the_maps_only_hint() -> None:
    sample = Halves()[3]  # bright from row 14 on: inside the second row of patches
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0, :2], logits[:, 1, 2:] = 2.0, 2.0
    targets = patch_targets(logits, sample['label'][None], sample['image'][None])
    maps = logits.sigmoid()[:, :2] / logits.sigmoid()[:, :2].sum(dim=1, keepdim=True)
    true = torch.tensor([1.0, 0.75, 0.0, 0.0]).view(1, 4, 1).expand(1, 4, 4)
    error = (targets[:, 0] - true).abs().mean()
    assert error < 0.5 * (maps[:, 0] - true).abs().mean()


def test_the_weight_rises_from_its_start() -> None:
    options = {'weight': 4.0, 'start': 0.5}
    assert self_training_weight(None, 0.9) == 0
    assert self_training_weight(options, 0.5) == 0
    assert self_training_weight(options, 0.55) == pytest.approx(2)
    assert self_training_weight(options, 1.0) == 4
    assert self_training_weight({}, 1.0) == 24


def test_it_begins_when_it_is_told_to(tmp_path: Path) -> None:
    _, never = fit(tmp_path, 4, self_training={'start': 1.0})
    assert 'self_training_loss' not in never
    _, early = fit(tmp_path, 4, self_training={'start': 0.0})
    assert early['self_training_loss'] > 0


def test_the_log_names_every_part_of_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {'self_training': {'weight': 500.0, 'start': 0.25}}
    said: list[str] = []
    monkeypatch.setattr(class_token_masking, 'rank_zero_info', said.append)
    task, logged = fit(tmp_path, 4, diversity_weight=0.5, **options)
    [line] = [each for each in said if each.startswith('Self-training begins')]
    assert 'grows to 500' in line
    parts = logged['token_loss'] + logged['patch_loss']
    torch.testing.assert_close(logged['label_loss'], parts)
    added = (
        500 * logged['self_training_loss']
        + 0.5 * logged['diversity_loss']
        + logged.get('attention_loss', torch.tensor(0.0))
    )
    torch.testing.assert_close(logged['train_loss'], logged['label_loss'] + added)
    assert logged['train_loss'] > 10 * logged['label_loss']
    assert 'label_loss' in task.trainer.progress_bar_metrics
    assert 'train_loss' not in task.trainer.progress_bar_metrics


def test_a_seed_repeats_it_and_it_changes_what_is_learnt(tmp_path: Path) -> None:
    first, again = (fit(tmp_path, 4, self_training={})[0] for _ in range(2))
    without, _ = fit(tmp_path, 4)
    head, same, other = (
        task.model.patch_head.weight for task in (first, again, without)
    )
    assert torch.equal(head, same)
    assert not torch.equal(head, other)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'self_training': {'wieght': 1.0}}, "Did you mean 'weight'"),
        ({'self_training': {'start': 1.5}}, 'must be 0 to 1, got 1.5'),
        ({'self_training': {'weight': -1.0}}, 'must be 0 or more, got -1'),
        ({'self_training': {}, 'task': 'multiclass'}, "requires task='multilabel'"),
        (
            {'self_training': {}, 'patch_loss_weight': 0, 'map_source': 'attention'},
            'Set patches.loss_weight=1',
        ),
    ],
)
def test_what_cannot_be_taught_is_refused(options: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        tiny_task(**options)


@pytest.mark.parametrize(
    'options',
    [
        {'schedule': 'plateau', 'self_training': {}},
        {'schedule': 'plateau', 'patch_pooling': 'share', 'patch_pooling_warmup': 0.3},
        {'schedule': 'cosine'},
    ],
)
def test_a_run_without_an_end_is_refused(tmp_path: Path, options: Any) -> None:
    with pytest.raises(SettingError, match='max_epochs or max_steps'):
        fit(tmp_path, -1, **options)


def test_pooling_warms_up_over_its_share_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def spy(logits: Tensor, pooling: Any, share: float, compete: bool) -> Tensor:
        asked.append(share)
        return pool_patch_logits(logits, pooling, share=share)

    module = 'torchgeo_ctm.trainers.class_token_masking'
    monkeypatch.setattr(f'{module}.pool_patch_logits', spy)
    fit(
        tmp_path, 4, patch_pooling='share', patch_pooling_warmup=0.5,
        label_min_share=0.25,
    )  # fmt: skip
    # half of four steps: from all patches over the geometric middle
    assert asked == pytest.approx([1.0, 0.5, 0.25, 0.25])


def test_a_warm_pool_is_nearly_the_mean() -> None:
    logits = torch.randn(2, 3, 8, 8)
    warm = pool_patch_logits(logits, 'share', share=narrowing_share(0.1, 0.0))
    cold = pool_patch_logits(logits, 'share', share=narrowing_share(0.1, 1.0))
    mean = pool_patch_logits(logits, 'mean')
    assert (warm - mean).abs().max() < 0.5 * (cold - mean).abs().min()
    assert narrowing_share(0.1, 5.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'patch_pooling_warmup': 0.3}, "requires patches.pooling='share', got 'logs"),
        (
            {'patch_pooling': 'share', 'patch_pooling_warmup': 3},
            'must be 0 to 1, got 3',
        ),
    ],
)
def test_a_warm_up_of_nothing_is_refused(options: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        tiny_task(**options)
