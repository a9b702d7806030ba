import pytest
import torch

from torchgeo_ctm.losses import pool_patch_logits


def test_pooling_of_constants_is_the_constant() -> None:
    logits = torch.full((2, 3, 4, 5), 1.5)
    for pooling in ('mean', 'logsumexp'):
        pooled = pool_patch_logits(logits, pooling)
        torch.testing.assert_close(pooled, torch.full((2, 3), 1.5))


def test_logsumexp_lies_between_mean_and_maximum() -> None:
    logits = torch.randn(2, 3, 4, 5)
    pooled = pool_patch_logits(logits)
    assert (pooled > logits.mean(dim=(-2, -1))).all()
    assert (pooled < logits.amax(dim=(-2, -1))).all()


@pytest.mark.parametrize(('sharpness', 'limit'), [(1e-3, 'mean'), (1e4, 'amax')])
def test_sharpness_has_the_stated_limits(sharpness: float, limit: str) -> None:
    logits = torch.randn(2, 3, 4, 5)
    pooled = pool_patch_logits(logits.double(), 'logsumexp', sharpness)
    expected = getattr(logits.double(), limit)(dim=(-2, -1))
    torch.testing.assert_close(pooled, expected, atol=2e-3, rtol=0)
