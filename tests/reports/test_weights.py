from typing import Any
from unittest.mock import patch

import pytest
import torch
from torchgeo.models import get_model

from tests.commands import Run
from torchgeo_ctm.reports.weights import weight_facts
from torchgeo_ctm.trainers.weights import KINDS


def test_the_command_lists_every_weight(run: Run) -> None:
    status, printed, _ = run('weights')
    lines = printed.splitlines()
    names = [str(weight) for kind in KINDS for weight in kind]
    assert status == 0
    assert [line.split()[0] for line in lines[1:]] == names
    assert 'ViTSmall14_DINOv2_Weights.SENTINEL2_ALL_SOFTCON' in names
    status, printed, _ = run('weights', '--markdown')
    rows = [line.split('|') for line in printed.splitlines()]
    assert [row[1].strip(' `') for row in rows[2:]] == names
    assert len({len(row) for row in rows}) == 1


def on_cpu(function: Any) -> Any:
    """A function of tensors that stay on the CPU."""
    return lambda *args, **options: function(*args, **options | {'device': 'cpu'})


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind.__name__)
def test_sizes_are_those_of_the_models(kind: Any) -> None:
    facts = {each.name: each for each in weight_facts()}
    for weight in kind:
        # block rates of depth are numbers, which old releases of timm read from a tensor
        with torch.device('meta'), patch('torch.linspace', on_cpu(torch.linspace)):
            model: Any = get_model(weight.meta['model'])
        embedding = getattr(model, 'patch_embed', None)
        embedding = embedding or model.patch_embed_spectral
        found = facts[str(weight)]
        assert found.width == model.cls_token.shape[-1]
        assert (found.patch_size,) * 2 == tuple(embedding.patch_size)
        assert found.bands is None or len(found.bands) == weight.meta['in_chans']
