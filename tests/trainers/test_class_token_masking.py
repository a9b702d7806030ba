import io
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from tests.conftest import save_task, tiny_task
from tests.fakes.chips import loader, trainer
from torchgeo_ctm.errors import DataError, LabelWarning, SettingError, UntrainedWarning
from torchgeo_ctm.trainers import load_task
from torchgeo_ctm.trainers.channel_facts import warn_of_other_classes
from torchgeo_ctm.trainers.masking import draw_masking
from torchgeo_ctm.trainers.optimizers import build_optimizer
from torchgeo_ctm.trainers.presence import check_entries


def test_what_is_not_known_moves_nothing() -> None:
    """Neither loss nor masking; the loss is the mean over what is known."""
    task = tiny_task(mask_rate=0.5)
    logits = torch.randn(6, 3, requires_grad=True)
    label = (torch.rand(6, 3) < 0.5).float()
    known = torch.tensor([True, False, True]).expand(6, 3)
    presence = task.presence({'label': label, 'label_known': known})
    loss = task.image_loss(logits, presence)
    expected = F.binary_cross_entropy_with_logits(logits[:, ::2], label[:, ::2])
    torch.testing.assert_close(loss, expected)
    [gradient] = torch.autograd.grad(loss, logits)
    assert (gradient[:, 1] == 0).all() and (gradient[:, ::2] != 0).all()
    drop = draw_masking(presence, 0.99, torch.Generator().manual_seed(0))
    assert not drop[:, 1].any()
    nothing = task.presence({'label': label, 'label_known': torch.zeros_like(known)})
    assert task.image_loss(logits, nothing) == 0


def test_unknown_classes_are_mapped_as_predicted() -> None:
    task = tiny_task(map_labels='true').eval()
    image = torch.rand(2, 13, 32, 32) * 3000
    label, known = torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool)
    batch = {'image': image, 'label': label, 'label_known': known}
    with torch.no_grad():
        found = task.predict_step(batch, 0)
        task.with_options(labels='predicted')
        expected = task.predict_step({'image': image}, 0)
    torch.testing.assert_close(found['scores'], expected['scores'])


def test_masking_is_for_training_only() -> None:
    task, x = tiny_task(mask_rate=0.99), torch.rand(2, 13, 32, 32) * 3000
    task.train()
    assert torch.equal(task(x), task(x))


def test_the_loss_never_sees_the_mask() -> None:
    batch = next(iter(loader('image', 'mask', 'label')))
    losses = []
    for mask in (batch['mask'], batch['mask'] * 0 + 2):
        task = tiny_task()
        task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
        task.setup('fit')
        loss = task.training_step(batch | {'mask': mask}, 0)
        assert loss is not None
        losses.append(loss)
    assert torch.equal(*losses)


def test_labels_come_from_the_mask_where_there_are_none() -> None:
    task = tiny_task()
    batch = next(iter(loader('image', 'mask', 'label')))
    from_label = task.presence(batch)
    from_mask = task.presence({key: batch[key] for key in ('image', 'mask')})
    assert torch.equal(from_label, from_mask)
    with pytest.raises(SettingError, match="must have 'label'"):
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
    losses = ('test_loss', 'test_balanced_bce')
    assert all(scores[name] >= 0 for name in losses)
    assert all(0 <= scores[k] <= 1 for k in scores if k not in losses)
    predictions = run.predict(task, loader('image'))
    assert predictions is not None
    size = (32, 32) if rule == 'paint' else (4, 4)
    batch: Any = predictions[0]
    assert batch['scores'].shape == (8, 3, *size)
    torch.testing.assert_close(batch['scores'].sum(1), torch.ones(8, *size))


def test_refined_scores_are_of_every_pixel(tmp_path: Path) -> None:
    refined = tiny_task(refinement='soft_assignment', refinement_options={'rounds': 2})
    run = trainer(tmp_path)
    [scores] = run.test(refined, loader('image', 'mask'), verbose=False)
    assert 0 <= scores['test_miou'] <= 1
    batch = next(iter(loader('image', 'mask')))
    with torch.no_grad():
        after = refined.eval().predict_step(batch, 0)
        before = tiny_task(refinement=None).eval().predict_step(batch, 0)
        masks = refined.pseudo_masks(after['maps'], after['probs'], (32, 32), batch)
    assert after['scores'].shape == (8, 3, 32, 32)
    torch.testing.assert_close(after['scores'].sum(1), torch.ones(8, 32, 32))
    torch.testing.assert_close(after['maps'], before['maps'])
    assert torch.equal(masks, after['scores'].argmax(dim=1))
    absent = before['scores'].sum((-2, -1)) == 0
    assert torch.equal(after['scores'].sum((-2, -1)) == 0, absent)


def test_refinement_comes_after_the_ensemble() -> None:
    task = tiny_task(refinement='soft_assignment', ensemble='dihedral').eval()
    batch = next(iter(loader('image', 'mask')))
    with torch.no_grad():
        scores = task.predict_step(batch, 0)['scores']
        task.with_options(refinement=None)
        averaged = task.predict_step(batch, 0)['scores']
    assert averaged.shape == (8, 3, 4, 4)
    image = task.scaling(batch['image'].float())
    task.with_options(refinement='soft_assignment')
    refined = task.decoder.refined(averaged, image, batch.get('valid'))
    torch.testing.assert_close(scores, refined)


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


def test_the_single_label_of_a_mask_is_its_largest_class() -> None:
    task = tiny_task(task='multiclass')
    mask = torch.zeros(2, 4, 4, dtype=torch.long)
    mask[0, 1:] = 2
    mask[1, 0] = 255
    assert task.presence({'mask': mask}).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_it_learns(tmp_path: Path) -> None:
    task = tiny_task(lr=3e-3, schedule='cosine')
    run = trainer(tmp_path, max_epochs=40)
    run.fit(task, loader('image', 'label'))
    [scores] = run.test(task, loader('image', 'mask'), verbose=False)
    assert scores['test_mAP'] > 0.95
    assert scores['test_miou_true_labels'] > 0.8


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
        (
            {'model': 'ctm_vit_tiny_patch9_224'},
            "Did you mean 'ctm_vit_tiny_patch8_224'",
        ),
        ({'mask_rate': 1.0}, 'mask_rate=1.0'),
        ({'threshold': 1.0}, 'threshold must be .* got 1.0'),
        ({'class_names': ['a']}, 'class_names must have num_classes=3 entries, got 1'),
        (
            {'class_colors': ['#000000']},
            'class_colors must have num_classes=3 entries, got 1',
        ),
        ({'bands': ['B02']}, 'bands has 1 names'),
        ({'patch_loss_weight': 0.0}, "maps.source='attention'"),
        ({'refinement': 'soft_asignment'}, "Did you mean 'soft_assignment'"),
        ({'refinement': 'soft_assignment', 'map_rule': 'paint'}, "maps.rule='argmax'"),
    ],
)
def test_impossible_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        tiny_task(**arguments)


def test_the_masking_schedule(tmp_path: Path) -> None:
    rates: list[float] = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
            rates.append(module.current_mask_rate)

    task = tiny_task(mask_rate=[(1, 0.2), (3, 0.5)], schedule='cosine')
    trainer(tmp_path, max_epochs=5, callbacks=[Watch()]).fit(
        task, loader('image', 'label')
    )
    assert rates == [0, 0.2, 0.2, 0.5, 0.5]
    for wrong in ([(3, 0.2), (1, 0.5)], [(0, 1.0)], [], [(-1, 0.2)]):
        with pytest.raises(SettingError, match='mask_rate='):
            tiny_task(mask_rate=wrong)


@pytest.mark.parametrize('optimizer', ['adamw', 'adam', 'sgd'])
@pytest.mark.parametrize('schedule', ['plateau', 'cosine'])
def test_optimisers_train(tmp_path: Path, optimizer: str, schedule: str) -> None:
    task = tiny_task(optimizer=optimizer, schedule=schedule, layer_decay=0.8)
    before = task.model.cls_token.detach().clone()
    trainer(tmp_path).fit(task, loader('image', 'label'), loader('image', 'label'))
    assert not torch.equal(before, task.model.cls_token)


def test_unknown_optimizers_are_refused() -> None:
    with pytest.raises(SettingError, match="Did you mean 'adam'"):
        tiny_task(optimizer='adamv')
    with pytest.raises(SettingError, match="Did you mean 'adam'"):
        build_optimizer('adamv', [])


@pytest.mark.parametrize(
    'arguments',
    [
        {'diversity_weight': 0.1},
        {'diversity_weight': 0.1, 'diversity_form': 'reference'},
        {'patch_pooling': 'rank'},
        {'class_weights': [1.0, 2.0, 0.5]},
        {'pruning': {'penalty': 0.01, 'lr': 0.1}},
    ],
)
def test_losses_train(tmp_path: Path, arguments: dict[str, Any]) -> None:
    task = tiny_task(schedule='cosine', **arguments)
    run = trainer(tmp_path)
    run.fit(task, loader('image', 'label'))
    assert torch.isfinite(run.callback_metrics['train_loss'])
    assert all(torch.isfinite(p).all() for p in task.parameters())


def test_class_weights_weigh() -> None:
    logits, presence = torch.randn(4, 3), torch.ones(4, 3)
    one = tiny_task(class_weights=[1.0, 0.0, 0.0]).image_loss(logits, presence)
    expected = torch.nn.functional.softplus(-logits[:, 0]).mean() / 3
    torch.testing.assert_close(one, expected)
    with pytest.raises(SettingError, match=r'labels\.weights must have'):
        tiny_task(class_weights=[1.0])


def test_checkpointing_and_compiling_change_nothing() -> None:
    batch = next(iter(loader('image', 'label')))
    gradients = []
    for checkpointing in (False, True):
        optimization = {'grad_checkpointing': checkpointing}
        task = tiny_task(mask_rate=0.0, optimization=optimization)
        task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
        task.setup('fit')
        loss = task.training_step(batch, 0)
        assert loss is not None
        torch.autograd.backward(loss)
        gradients.append(task.model.cls_token.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
def test_compiled_blocks_change_nothing() -> None:
    x = torch.rand(2, 13, 32, 32) * 3000
    plain = tiny_task().eval()
    compiled = tiny_task(optimization={'compile_blocks': True}).eval()
    with torch.no_grad():
        torch.testing.assert_close(plain(x), compiled(x))
    assert plain.state_dict().keys() == compiled.state_dict().keys()


def test_calibration_by_odds() -> None:
    plain, shifted = tiny_task(mask_rate=0.5), tiny_task(calibration='odds')
    logits = torch.zeros(1, 3)
    assert plain.probabilities(logits).tolist() == [[0.5] * 3]
    # odds of 1 were learnt where a half of the absent tokens is masked: truly 1/2
    assert shifted.probabilities(logits)[0].tolist() == pytest.approx([1 / 3] * 3)


def test_calibration_by_validation_is_in_the_checkpoint(tmp_path: Path) -> None:
    task = tiny_task(calibration='validation')
    trainer(tmp_path).fit(task, loader('image', 'label'), loader('image', 'label'))
    # classes 0 and 1 are each absent from a third of the chips, 2 from all
    assert (task.presence_shift[:2] != 0).all()
    assert task.presence_shift[2] == 0
    loaded = load_task(save_task(task, tmp_path / 'x.ckpt'))
    assert torch.equal(loaded.presence_shift, task.presence_shift)


def test_gates_open_until_their_epoch(tmp_path: Path) -> None:
    opened: list[float] = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
            logged = trainer.callback_metrics.get('heads_open')
            opened.append(1.0 if logged is None else float(logged))

    task = tiny_task(
        pruning={'penalty': 1.0, 'lr': 1.0, 'start_epoch': 2}, schedule='cosine'
    )
    trainer(tmp_path, max_epochs=6, callbacks=[Watch()]).fit(
        task, loader('image', 'label')
    )
    assert opened[:2] == [1, 1]
    assert opened[-1] == 0


def test_gates_settle(tmp_path: Path) -> None:
    """From the settling epoch on nothing is sampled, and what was decided stands."""
    decided: list[Any] = []

    class Watch(pl.Callback):
        def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
            decided.append([gate.hard().tolist() for gate in module.model.gates])
            if trainer.current_epoch >= 2:
                gate = module.model.gates[0]
                assert torch.equal(gate(), gate())
                assert torch.equal(gate(), gate.hard())

    pruning = {'penalty': 0.3, 'lr': 1.0, 'start_epoch': 0, 'settle_epoch': 2}
    task = tiny_task(pruning=pruning, schedule='cosine')
    trainer(tmp_path, max_epochs=5, callbacks=[Watch()]).fit(
        task, loader('image', 'label')
    )
    assert decided[2] == decided[3] == decided[4]
    for gate in task.model.gates:
        assert (gate.log_a.abs() > 3).all()


@pytest.mark.parametrize(
    'arguments',
    [
        {},
        {'pruning': {'penalty': 0.01}},
        {'pruning': {'start_epoch': 5}},
        {'pruning': {'settle_epoch': 0}},
        {'patch_pooling': 'rank', 'diversity_weight': 0.1},
        {'patch_loss_weight': 0.0, 'map_source': 'attention'},
        {'task': 'multiclass'},
    ],
)
def test_every_trained_parameter_has_a_gradient(arguments: dict[str, Any]) -> None:
    task = tiny_task(**arguments)
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    task.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    task.setup('fit')
    task.on_train_epoch_start()
    batch = next(iter(loader('image', 'label')))
    loss = task.training_step(batch, 0)
    assert loss is not None
    torch.autograd.backward(loss)
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None, name


def test_attention_is_drawn_over_the_image() -> None:
    task, image = tiny_task(), 1000 + 2000 * torch.rand(13, 32, 48)
    figure = task.plot_attention(image)
    assert len(figure.axes) == 3 * (1 + 2)
    assert [axis.get_title() for axis in figure.axes[:3]] == [
        'RGB',
        'block 0',
        'block 1',
    ]
    heads = task.plot_attention(image, block=-1, classes=['Water'])
    assert [axis.get_title() for axis in heads.axes] == ['RGB', 'head 0', 'head 1']
    assert heads.axes[0].get_ylabel() == 'Water'
    figure.savefig(buffer := io.BytesIO())
    assert buffer.getvalue().startswith(b'\x89PNG')
    with pytest.raises(SettingError, match="Did you mean 'Water'"):
        task.plot_attention(image, classes=['water'])
    with pytest.raises(SettingError, match='block must be -2 to 1, got 2'):
        task.plot_attention(image, block=2)


def close_heads(task: Any, closed: tuple[tuple[int, int], ...]) -> None:
    for block, head in closed:
        task.model.gates[block].log_a.data[head] = -3


@pytest.mark.parametrize(
    'closed', [(), ((0, 1),), ((0, 0), (0, 1)), ((0, 0), (0, 1), (1, 0), (1, 1))]
)
def test_removed_heads_leave_the_outputs(
    tmp_path: Path, closed: tuple[tuple[int, int], ...]
) -> None:
    task = tiny_task(pruning={}).eval()
    close_heads(task, closed)
    x = torch.rand(2, 13, 32, 32) * 3000
    with torch.no_grad():
        before = task.model.forward_attention(task.scaling(x))
        with FlopCounterMode(display=False) as gated:
            task(x)
        task.remove_pruned_heads()
        after = task.model.forward_attention(task.scaling(x))
        with FlopCounterMode(display=False) as removed:
            task(x)
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=0)
    assert (removed.get_total_flops() < gated.get_total_flops()) == bool(closed)
    loaded = load_task(save_task(task, tmp_path / 'pruned.ckpt'))
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), task(x))
    assert sum(attn.num_heads for attn in loaded.model.attentions) == 4 - len(closed)


def test_predicting_removes_heads_by_default(tmp_path: Path) -> None:
    for pruning, heads in (({}, 3), ({'remove_at_predict': False}, 4)):
        task = tiny_task(pruning=pruning)
        close_heads(task, ((0, 1),))
        trainer(tmp_path).predict(task, loader('image'))
        assert sum(attn.num_heads for attn in task.model.attentions) == heads


def test_attention_maps_of_one_image() -> None:
    task = tiny_task()
    image = torch.rand(13, 32, 40) * 3000
    maps = task.attention_maps(image)
    heads = task.attention_maps(image, by_head=True)
    assert isinstance(maps, torch.Tensor)
    assert maps.shape == (2, 3, 4, 5)
    assert [tuple(h.shape) for h in heads] == [(2, 3, 4, 5)] * 2
    torch.testing.assert_close(torch.stack([h.mean(0) for h in heads]), maps)
    assert task.training
    with pytest.raises(DataError, match=r'ndarray \(13, 32, 40\), .* torch.from_numpy'):
        task.attention_maps(image.numpy())  # type: ignore[arg-type]


def test_presence_by_probability() -> None:
    maps = torch.full((1, 3, 2, 2), 0.5)
    maps[0, 1] = 0.6
    probs = torch.tensor([[0.9, 0.4, 0.001]])
    by_threshold = tiny_task(num_classes=3, presence='threshold')
    weighted = tiny_task(num_classes=3, presence='probability')
    shares = by_threshold.decoder.shares(maps, probs)[0, :, 0, 0]
    assert shares.tolist() == [1, 0, 0]
    shares = weighted.decoder.shares(maps, probs)[0, :, 0, 0]
    # 0.9 × 0.5 against 0.4 × 0.6; what is unlikely is left out
    torch.testing.assert_close(shares, torch.tensor([0.45, 0.24, 0]) / 0.69)
    # a probability weighs as much as evidence does
    probs = torch.tensor([[0.3, 0.9, 0.0]])
    assert (weighted.pseudo_masks(maps, probs, (4, 4)) == 1).all()


def test_true_labels_do_not_depend_on_presence() -> None:
    maps, labels = torch.rand(2, 3, 4, 4), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    masks = [
        tiny_task(
            num_classes=3, maps={'presence': presence, 'labels': 'true'}
        ).pseudo_masks(maps, labels, (8, 8))
        for presence in ('threshold', 'probability', 'all')
    ]
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])


def test_painting_needs_a_threshold() -> None:
    with pytest.raises(
        SettingError, match=r"'probability' requires maps\.rule='argmax'"
    ):
        tiny_task(presence='probability', map_rule='paint')


def test_images_of_another_shape_are_refused() -> None:
    task, image = tiny_task(), torch.rand(13, 32, 32) * 3000
    with pytest.raises(DataError, match=r'expected \(B, bands, H, W\)'):
        task(image)
    with pytest.raises(DataError, match=r'one image as a tensor \(bands, H, W\)'):
        task.plot_attention(image[None])
    one = task.plot_attention(image, classes=task.class_names[0])
    assert len(one.axes) == len(task.plot_attention(image).axes) // 3


@pytest.mark.parametrize('dtype', [torch.uint16, torch.int32, torch.float64])
def test_images_of_any_type_are_predicted(dtype: torch.dtype) -> None:
    task = tiny_task().eval()
    image = (torch.rand(2, 13, 32, 32) * 3000).round()
    found = task.predict_step({'image': image.to(dtype)}, 0)
    expected = task.predict_step({'image': image}, 0)
    assert torch.equal(found['scores'], expected['scores'])


@pytest.mark.parametrize(
    ('label', 'task', 'message'),
    [
        ([[0.6, 0.4, 0.0]], 'multilabel', 'A label holds 0.6'),
        ([[1.0, 1.0, 0.0]], 'multiclass', 'A label has 2 classes'),
    ],
)
def test_labels_that_look_like_something_else(
    label: list[list[float]], task: str, message: str
) -> None:
    batch = {'label': torch.tensor(label)}
    with pytest.warns(LabelWarning, match=message):
        check_entries(batch, 3, multiclass=task == 'multiclass')


def test_an_untrained_network_is_told(tmp_path: Path) -> None:
    task = tiny_task()
    path = save_task(task, tmp_path / 'x.ckpt')
    with pytest.warns(UntrainedWarning, match='random initial weights'):
        trainer(tmp_path).test(task, loader('image', 'label'), verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UntrainedWarning)
        trainer(tmp_path).test(
            task, loader('image', 'label'), verbose=False, ckpt_path=path
        )
        trainer(tmp_path).predict(load_task(path), loader('image', 'label'))
        fresh = tiny_task()
        run = trainer(tmp_path)
        run.fit(fresh, loader('image', 'label'), loader('image', 'label'))
        run.validate(fresh, loader('image', 'label'), verbose=False)


@pytest.mark.parametrize(
    ('names', 'told'),
    [
        (['trees', 'water', 'built'], True),
        (['water', 'trees', 'Urban'], False),
        (['Wasser', 'Bäume', 'Stadt'], False),
    ],
)
def test_data_with_the_classes_in_another_order_are_told(
    names: list[str], told: bool
) -> None:
    chips = [{'image': torch.rand(13, 32, 32), 'label': torch.zeros(3)}]
    dataset = SimpleNamespace(classes=('Water', 'trees', 'built'), items=chips)
    trainer = SimpleNamespace(datamodule=SimpleNamespace(test_dataset=dataset))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        warn_of_other_classes(trainer, 'test', names)
    said = [str(each.message) for each in caught]
    assert len(said) == told
    assert all('classes Water, trees, built, the model trees, water' in t for t in said)
