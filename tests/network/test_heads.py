"""From patch tokens to patch logits, each class by itself or against the others."""

import pytest
import torch
from torch import Tensor

from torchgeo_ctm.errors import SettingError
from torchgeo_ctm.losses import log_odds, narrowing_share, pool_patch_logits
from torchgeo_ctm.models import ClassTokenViT
from torchgeo_ctm.network.heads import PatchHead


def spread_logits() -> Tensor:
    """Logits from equal to as far apart as training ever makes them."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 7, generator=generator, dtype=torch.float64) * 10
    logits[0] = 3
    logits[1, 2] = 200
    logits[2, :2] = 80
    return logits


def by_hand(logits: Tensor) -> Tensor:
    """Each class's logit less the logarithm of the other classes' sum."""
    others = [
        torch.cat([logits[..., :c], logits[..., c + 1 :]], -1).logsumexp(-1)
        for c in range(logits.shape[-1])
    ]
    return logits - torch.stack(others, -1)


def test_sigmoid_of_log_odds_is_softmax() -> None:
    logits = spread_logits()
    shares = log_odds(logits).sigmoid()
    torch.testing.assert_close(shares.double(), logits.softmax(-1))


def test_log_odds_and_slopes_are_exact_at_the_ends() -> None:
    logits = spread_logits().requires_grad_()
    ours, true = log_odds(logits), by_hand(logits)
    torch.testing.assert_close(ours.double(), true, rtol=1e-5, atol=1e-5)
    slopes = [torch.autograd.grad(x.square().sum(), logits)[0] for x in (ours, true)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-4)


def test_half_precision_does_not_lose_a_sure_patch() -> None:
    logits = torch.tensor([[30.0, 0.0]], dtype=torch.bfloat16)
    assert log_odds(logits).tolist() == [[30.0, -30.0]]


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_activations_share_their_weights(activation: str) -> None:
    torch.manual_seed(0)
    plain = ClassTokenViT(32, 8, 13, 4, 32, 2, 2)
    other = ClassTokenViT(
        32,
        8,
        13,
        4,
        32,
        2,
        2,
        patch_activation=activation,  # type: ignore[arg-type]
    )
    other.load_state_dict(plain.state_dict())
    image = torch.randn(2, 13, 32, 48)
    logits, patches = plain.forward_logits(image)
    same, shares = other.forward_logits(image)
    assert patches is not None
    assert shares is not None
    torch.testing.assert_close(same, logits)
    wanted = patches.softmax(1) if activation == 'softmax' else patches.sigmoid()
    torch.testing.assert_close(shares.sigmoid(), wanted)


def learnt(activation: str, warmup: float = 0.3, seed: int = 0) -> Tensor:
    """Share of class 0 in patches of either colour, from labels alone.

    Every image holds class 0, half of them class 1 too: of class 0 there is no image
    without it.
    """
    torch.manual_seed(seed)
    head = PatchHead(2, 2, activation)  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    colours = torch.eye(2)
    half = torch.cat([colours[:1].repeat(8, 1), colours[1:].repeat(8, 1)])
    images = torch.stack([colours[:1].repeat(16, 1), half])
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    for step in range(300):
        share = narrowing_share(0.25, step / 300 / warmup) if warmup else 0.25
        maps = head(images).transpose(1, 2)[..., None]
        pooled = pool_patch_logits(maps, 'share', share=share)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(pooled, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    shares: Tensor = head(colours).sigmoid()
    return shares[:, 0].detach()


@pytest.mark.parametrize('seed', [0, 1, 2, 3])
def test_a_class_of_every_image_learns_where_it_is_not(seed: int) -> None:
    first, second = learnt('softmax', seed=seed)
    assert first > 0.9
    assert second < 0.1
    # by itself, nothing ever says so
    assert learnt('sigmoid', seed=seed)[1] > 0.5


def test_without_warm_up_a_first_guess_can_stay() -> None:
    # the control of the test above: the classes are learnt the wrong way round
    assert learnt('softmax', warmup=0, seed=0)[1] > 0.9


def test_unknown_activation() -> None:
    with pytest.raises(SettingError, match="Unknown patch_activation 'relu'"):
        PatchHead(32, 4, 'relu')  # type: ignore[arg-type]


def test_one_class_has_no_other() -> None:
    with pytest.raises(SettingError, match='2 classes or more, got num_classes=1'):
        PatchHead(32, 1, 'softmax')
