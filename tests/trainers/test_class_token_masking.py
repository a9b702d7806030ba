from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tests.conftest import save_task, tiny_task
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.trainers.class_token_masking import MeanAveragePrecision, draw_masking


class Chips(Dataset[dict[str, Tensor]]):
    """Chips in which class 0 is dark and class 1 bright; each holds one or both."""

    def __init__(self, keys: tuple[str, ...], length: int = 24) -> None:
        self.keys = keys
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        mask = torch.zeros(32, 32, dtype=torch.long)
        mask[:, 16 * (index % 3) :] = 1
        noise = torch.randn(13, 32, 32, generator=torch.Generator().manual_seed(index))
        sample = {
            'image': 1000 + 1500 * mask.float() + 100 * noise,
            'mask': mask,
            'label': torch.tensor([float((mask == c).any()) for c in (0, 1, 2)]),
            'class': mask[0, 31],
        }
        kept = {key: sample[key] for key in self.keys}
        return {('label' if key == 'class' else key): kept[key] for key in kept}


def trainer(tmp_path: Path, **kwargs: Any) -> pl.Trainer:
    return pl.Trainer(
        default_root_dir=tmp_path,
        accelerator='cpu',
        enable_progress_bar=False,
        enable_model_summary=False,
        **({'max_epochs': 1, 'logger': False, 'enable_checkpointing': False} | kwargs),
    )


def loader(*keys: str, length: int = 24) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(Chips(keys, length), batch_size=8)


def test_masking_spares_present_classes_and_keeps_its_rate() -> None:
    presence = (torch.rand(2000, 5) < 0.4).float()
    drop = draw_masking(presence, 0.3, torch.Generator().manual_seed(0))
    assert not (drop & (presence == 1)).any()
    assert drop[presence == 0].float().mean() == pytest.approx(0.3, abs=0.02)
    again = draw_masking(presence, 0.3, torch.Generator().manual_seed(0))
    assert torch.equal(drop, again)
    assert not draw_masking(presence, 0.0, torch.Generator()).any()


def test_masking_is_for_training_only() -> None:
    task, x = tiny_task(mask_rate=0.99), torch.rand(2, 13, 32, 32) * 3000
    task.train()
    assert torch.equal(task(x), task(x))


def test_the_loss_never_sees_the_mask() -> None:
    task = tiny_task()
    batch = next(iter(loader('image', 'mask', 'label')))
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    task.setup('fit')
    loss = task.training_step(batch, 0)
    task.setup('fit')
    other = task.training_step(batch | {'mask': batch['mask'] * 0 + 2}, 0)
    assert torch.equal(loss, other)


def test_labels_come_from_the_mask_where_there_are_none() -> None:
    task = tiny_task()
    batch = next(iter(loader('image', 'mask', 'label')))
    from_label = task.presence(batch)
    from_mask = task.presence({key: batch[key] for key in ('image', 'mask')})
    assert torch.equal(from_label, from_mask)
    with pytest.raises(SettingError, match="needed: 'label'"):
        task.presence({'image': batch['image']})


@pytest.mark.parametrize('source', ['fused', 'attention', 'patchcam'])
@pytest.mark.parametrize('rule', ['argmax', 'paint'])
def test_fit_validate_test_predict(tmp_path: Path, source: str, rule: str) -> None:
    task = tiny_task(map_source=source, map_rule=rule)
    run = trainer(tmp_path)
    run.fit(task, loader('image', 'mask'), loader('image', 'mask'))
    [scores] = run.test(task, loader('image', 'mask'), verbose=False)
    assert {'test_loss', 'test_mAP', 'test_F1', 'test_miou'} <= scores.keys()
    assert {'test_miou_true_labels', 'test_nothing_predicted'} <= scores.keys()
    assert {'test_iou_Forest', 'test_iou_Water'} <= scores.keys()
    assert all(0 <= scores[k] <= 1 for k in scores if k != 'test_loss')
    predictions = run.predict(task, loader('image'))
    assert predictions is not None
    size = (32, 32) if rule == 'paint' else (4, 4)
    batch: Any = predictions[0]
    assert batch['scores'].shape == (8, 3, *size)
    torch.testing.assert_close(batch['scores'].sum(1), torch.ones(8, *size))


def test_no_mask_no_iou(tmp_path: Path) -> None:
    [scores] = trainer(tmp_path).test(
        tiny_task(), loader('image', 'label'), verbose=False
    )
    assert 'test_mAP' in scores
    assert 'test_miou' not in scores


@pytest.mark.parametrize('keys', [('image', 'class'), ('image', 'mask')])
def test_single_label(tmp_path: Path, keys: tuple[str, ...]) -> None:
    task = tiny_task(task='multiclass')
    run = trainer(tmp_path)
    run.fit(task, loader(*keys), loader(*keys))
    [scores] = run.test(task, loader(*keys), verbose=False)
    assert 0 <= scores['test_F1'] <= 1
    assert task.probabilities(torch.randn(4, 3)).sum(1).tolist() == pytest.approx(
        [1] * 4
    )


def test_it_learns(tmp_path: Path) -> None:
    task = tiny_task(lr=3e-3, schedule='cosine')
    run = trainer(tmp_path, max_epochs=40)
    run.fit(task, loader('image', 'label'))
    [scores] = run.test(task, loader('image', 'mask'), verbose=False)
    assert scores['test_mAP'] > 0.95
    assert scores['test_miou_true_labels'] > 0.8


def test_mean_average_precision_leaves_out_classes_that_never_occur() -> None:
    metric = MeanAveragePrecision(3)
    target = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0]])
    metric.update(target.float() * 0.8 + 0.1, target)
    assert metric.compute() == 1
    metric.reset()
    metric.update(torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.long))
    assert metric.compute() == 0


def test_a_seed_repeats_a_run(tmp_path: Path) -> None:
    weights = []
    for _ in range(2):
        pl.seed_everything(3, verbose=False)
        task = tiny_task()
        trainer(tmp_path, max_epochs=2).fit(
            task, loader('image', 'label'), loader('image', 'label')
        )
        weights.append(task.model.cls_token.detach())
    assert torch.equal(*weights)


def test_predictions_do_not_depend_on_the_batch() -> None:
    task = tiny_task().eval()
    x = torch.rand(4, 13, 32, 32) * 3000
    with torch.no_grad():
        together = task.predict_step({'image': x}, 0)['scores']
        alone = torch.cat(
            [task.predict_step({'image': i[None]}, 0)['scores'] for i in x]
        )
    torch.testing.assert_close(together, alone)


def test_true_labels_decide_where_asked() -> None:
    task = tiny_task(map_labels='true').eval()
    batch = next(iter(loader('image', 'mask')))
    shares = task.predict_step(batch, 0)['scores'].sum((-2, -1))
    assert torch.equal(shares > 0, task.presence(batch).bool())


def test_a_figure_reaches_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = pl.loggers.TensorBoardLogger(str(tmp_path))
    trainer(tmp_path, logger=logger).validate(
        tiny_task(), loader('image', 'mask'), verbose=False
    )
    logger.finalize('success')
    events = EventAccumulator(logger.log_dir).Reload()
    assert events.Tags()['images'] == ['maps']


def test_the_schedule_rises_and_falls(tmp_path: Path) -> None:
    rates: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]['lr'])

    task = tiny_task(lr=1e-3, schedule='cosine', warmup=0.2)
    trainer(tmp_path, max_epochs=5, callbacks=[Watch()]).fit(
        task, loader('image', 'label')
    )
    assert len(rates) == 15
    assert rates.index(max(rates)) in (2, 3)
    assert rates[-1] < 0.05 * max(rates)


def test_starting_weights(tmp_path: Path) -> None:
    first = tiny_task()
    path = save_task(first, tmp_path / 'start.ckpt')
    torch.manual_seed(1)
    second = tiny_task(weights=str(path))
    assert torch.equal(first.model.pos_embed, second.model.pos_embed)
    assert 'weights' not in second.hparams


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'model': 'ctm_vit_tiny_patch9_224'}, 'nearest: ctm_vit_tiny_patch8_224'),
        ({'mask_rate': 1.0}, 'mask_rate=1.0'),
        ({'threshold': 1.0}, 'threshold=1.0'),
        ({'class_names': ['a']}, 'class_names has 1 entries'),
        ({'class_colors': ['#000000']}, 'class_colors has 1 entries'),
        ({'bands': ['B02']}, 'bands has 1 names'),
        ({'patch_loss_weight': 0.0}, "map_source='attention'"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tiny_task(**arguments)
