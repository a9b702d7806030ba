"""The local patch head in the task: pooling, balance, attention, masks without tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import save_task, tiny_task
from tests.fakes.chips import loader, trainer
from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.losses import pool_patch_logits
from torchgeo_ctm.trainers import ClassTokenMaskingTask, load_task

PATCHES = {'head': 'local', 'pooling': 'share', 'share': 0.25}
MAPS = {'source': 'patches', 'presence': 'all', 'refinement': None}


def local_task(**options: Any) -> ClassTokenMaskingTask:
    """A tiny task whose masks come from the local head."""
    return tiny_task(**({'patches': PATCHES, 'maps': MAPS} | options))


def test_masks_are_the_softmax_of_the_local_head() -> None:
    task = local_task().eval()
    image = torch.rand(2, 13, 32, 32) * 3000
    with torch.no_grad():
        found = task.predict_images({'image': image})
        logits = task.model.local_logits(task.scaling(image))
    torch.testing.assert_close(found['scores'], logits.softmax(dim=1))
    pooled = pool_patch_logits(logits, 'share', share=0.25)
    torch.testing.assert_close(found['probs'], pooled.sigmoid())


def test_images_need_no_multiple_of_the_transformer_patch() -> None:
    task = local_task().eval()
    assert task.is_local and task.model.patch_size == 8
    found = task.predict_images({'image': torch.rand(1, 13, 36, 44) * 3000})
    assert found['scores'].shape == (1, 3, 9, 11)


@pytest.mark.parametrize(
    'changes', [{'presence': 'threshold'}, {'source': 'fused'}, {'labels': 'true'}]
)
def test_class_tokens_are_asked_where_the_masks_need_them(
    changes: dict[str, str],
) -> None:
    task = local_task(maps=MAPS | changes).eval()
    assert not task.is_local
    batch = {'image': torch.rand(1, 13, 32, 32) * 3000, 'label': torch.ones(1, 3)}
    found = task.predict_images(batch)
    # on the grid of 4 px, whatever the patches of the transformer
    assert found['scores'].shape == (1, 3, 8, 8)


def test_balance_counts_the_labels_it_has_seen(tmp_path: Path) -> None:
    task = local_task(patches=PATCHES | {'balance': 1.0})
    run = trainer(tmp_path)
    chips = loader('image', 'label', length=24)
    run.fit(task, chips, chips)
    # class 0 and 1 in 16 of 24 chips, class 2 in none; one of two is assumed
    assert task.label_counts.tolist() == [[17, 17, 1], [26, 26, 26]]
    weights = task._label_weights(torch.tensor([[1.0, 1.0, 0.0]]))
    expected = [0.5 / (17 / 26), 0.5 / (17 / 26), 0.5 / (1 - 1 / 26)]
    assert weights[0].tolist() == pytest.approx(expected)
    loaded = load_task(save_task(task, tmp_path / 'balanced.ckpt'))
    assert torch.equal(loaded.label_counts, task.label_counts)


def test_unknown_labels_are_not_counted() -> None:
    task = local_task(patches=PATCHES | {'balance': 1.0})
    task._trainer = None
    task.trainer = trainer(Path('.'))
    task._count_labels(torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]))
    assert task.label_counts.tolist() == [[2, 1, 2], [3, 4, 3]]


def test_without_balance_checkpoints_have_no_counts() -> None:
    for options in ({'patches': PATCHES | {'balance': 0}}, {'task': 'multiclass'}):
        assert not any(
            'label_counts' in key for key in local_task(**options).state_dict()
        )


def test_competing_classes_are_pooled_as_the_loss_says() -> None:
    task = local_task(patches=PATCHES | {'compete': True})
    logits, presence = torch.randn(2, 3), torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0]])
    patch_logits = torch.randn(2, 3, 8, 8)
    pooled = pool_patch_logits(patch_logits, 'share', share=0.25, compete=True)
    expected = sum(
        F.binary_cross_entropy_with_logits(values, presence)
        for values in (logits, pooled)
    )
    loss = task.label_loss(logits, patch_logits, presence, 0.25)
    torch.testing.assert_close(loss, expected)


def test_patches_teach_attention_and_learn_nothing_from_it(tmp_path: Path) -> None:
    task = local_task(attention={'distillation_weight': 1.0}, mask_rate=0.0)
    task.train()
    task.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    batch = next(iter(loader('image', 'label')))
    x, presence = task.scaling(batch['image']), task.presence(batch)
    _, attention, patch_logits = task.model.forward_attention(x)
    loss = task._attention_loss(attention, patch_logits, presence)
    assert isinstance(loss, torch.Tensor)
    loss.backward()  # type: ignore[no-untyped-call]
    local = task.model.local_head
    assert local is not None and local.head.weight.grad is None
    gradient = task.model.attentions[0].qkv.weight.grad
    assert gradient is not None and gradient.any()
    task = local_task(attention={'distillation_weight': 1.0})
    run, chips = trainer(tmp_path), loader('image', 'label')
    run.fit(task, chips, chips)
    assert torch.isfinite(run.callback_metrics['attention_loss'])


@pytest.mark.parametrize(
    'options, words',
    [
        ({'patches': {'share': 1.5, 'pooling': 'share'}}, 'at most 1'),
        ({'patches': {'balance': 2.0}}, 'patches.balance must be 0 to 1'),
        ({'attention': {'distillation_weight': -1.0}}, '0 or more'),
        (
            {
                'attention': {'distillation_weight': 1.0},
                'patches': {'loss_weight': 0},
                'maps': {'source': 'attention'},
            },
            'requires the patch head.*attention.distillation_weight=0',
        ),
        ({'patches': {'loss_weight': 0}}, "Use maps.source='attention'"),
        ({'maps': {'refinement_weight': 0.0}}, 'above 0 and at most 1'),
        (
            {'maps': {'presence': 'all', 'rule': 'paint'}},
            "maps.presence='all' requires",
        ),
        ({'patches': {'head': 'lokal'}}, 'lokal'),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        tiny_task(**options)


def test_refinement_is_blended_as_the_weight_says() -> None:
    image = torch.rand(1, 13, 32, 32) * 3000
    found = {}
    for weight in (0.5, 1.0):
        maps = MAPS | {'refinement': 'soft_assignment', 'refinement_weight': weight}
        task = local_task(maps=maps).eval()
        with torch.no_grad():
            found[weight] = task.predict_images({'image': image})['scores']
    plain = local_task().eval().predict_images({'image': image})['scores']
    prior = F.interpolate(plain, size=(32, 32), mode='bilinear')
    by_hand = (prior * found[1.0]).sqrt()
    by_hand /= by_hand.sum(dim=1, keepdim=True)
    torch.testing.assert_close(found[0.5], by_hand)
    assert task.provenance()['REFINEMENT'] == 'soft_assignment'
