"""What benchmarks/training.py compares: the same network, the same losses."""

import sys

import pytest
import torch

from benchmarks.training import (
    Batch,
    PlainViT,
    Setting,
    make_batch,
    make_step,
    make_task,
    memory,
    speed,
)

TINY = Setting(4, 32, {'embed_dim': 16, 'depth': 2, 'num_heads': 2})
pytestmark = pytest.mark.filterwarnings('ignore:You are trying to `self.log')


@pytest.fixture
def batch() -> Batch:
    return make_batch(TINY)


def test_plain_gives_our_probabilities_and_maps(batch: Batch) -> None:
    task = make_task(TINY)
    plain = PlainViT(TINY.img_size, TINY.options)
    plain.load_state_dict(task.model.state_dict())
    drawn = torch.rand(batch['label'].shape) < 0.5
    drop = drawn & (batch['label'] == 0)
    scaled = task.scaling(batch['image'])
    assert torch.equal(scaled, batch['scaled'])
    with torch.no_grad():
        ours = task.model.forward_attention(scaled, drop=drop)
        theirs = plain(scaled, batch['label'], drawn)
        unmasked = plain(scaled, batch['label'], drawn & False)
    assert drop.any()
    assert not torch.allclose(theirs[0], unmasked[0])
    torch.testing.assert_close(theirs[0].sigmoid(), ours[0].sigmoid())
    assert ours[2] is not None
    torch.testing.assert_close(theirs[1].transpose(1, 2), ours[2].flatten(2))
    torch.testing.assert_close(theirs[2].transpose(0, 1), ours[1].flatten(3))


def test_labels_of_the_batch_are_those_of_its_masks(batch: Batch) -> None:
    task = make_task(TINY)
    assert torch.equal(task.presence({'mask': batch['mask']}), batch['label'])
    assert 0 < batch['label'].mean() < 1


@pytest.mark.parametrize('side', ['plain', 'checkpointed'])
def test_sides_learn_alike_from_the_same_weights(side: str, batch: Batch) -> None:
    """Loss after loss: so masking, losses, gradients and optimiser are the same."""
    ours, other = make_step('ours', TINY, batch), make_step(side, TINY, batch)
    expected = [float(ours()) for _ in range(6)]
    assert [float(other()) for _ in range(6)] == pytest.approx(expected, rel=1e-4)
    assert expected[-1] != pytest.approx(expected[0], rel=1e-2)


def test_speed_is_told_of_every_side() -> None:
    result = speed(TINY, rounds=3, steps=2)
    assert set(result['images_per_second']) == set(TINY.sides)
    assert all(len(turns) == 3 for turns in result['seconds'].values())
    assert result['first_loss']['plain'] == pytest.approx(result['first_loss']['ours'])
    rounds = [
        theirs / ours
        for ours, theirs in zip(
            result['seconds']['ours'], result['seconds']['timm'], strict=True
        )
    ]
    assert result['ours_over_timm'] == sorted(rounds)[1]
    assert {'ours_over_plain', 'checkpointed_over_timm'} <= set(result)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_maps_take_memory() -> None:
    """Of 5 × 793² float32 an image and block: 75 MB; ours keeps none of them."""
    # an allocator keeps some 10 MB more or less
    setting = Setting(2, 448, {'embed_dim': 40, 'depth': 3, 'num_heads': 5})
    result = memory(setting, ('plain', 'ours'))
    peaks = result['peak_memory_mb']
    maps = 3 * 2 * 5 * (9 + 28 * 28) ** 2 * 4 / 1e6
    assert peaks['plain'] > maps
    assert peaks['plain'] - peaks['ours'] > maps / 2
    assert result['memory_share_of_plain'] == peaks['ours'] / peaks['plain'] < 1
