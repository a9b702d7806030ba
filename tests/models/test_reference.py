from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.reference_fusion import ReferenceFusion
from tests.fakes.networks import reference_state
from torchgeo_ctm.errors import CheckpointError
from torchgeo_ctm.models.reference import from_reference

Golden = Callable[[str], dict[str, Any]]


CLOSE: dict[str, Any] = {'atol': 1e-5, 'rtol': 0}


@pytest.mark.parametrize('name', ['unpruned', 'pruned'])
def test_outputs_are_the_references(name: str, golden: Golden) -> None:
    archive = {
        key: torch.from_numpy(value) if value.dtype.kind in 'fb' else value
        for key, value in golden(name).items()
    }
    state = reference_state(archive['names'].tolist())
    model = from_reference(state, num_heads=4)
    drop = archive['drop'] & (archive['labels'] == 0)
    with torch.no_grad():
        logits, attention, _ = model.forward_attention(archive['image'], gated=False)
        masked = model(archive['image'], drop)
        fused = ReferenceFusion(state, model)(archive['image'])
    torch.testing.assert_close(logits.sigmoid(), archive['probs'], **CLOSE)
    torch.testing.assert_close(masked.sigmoid(), archive['probs_masked'], **CLOSE)
    layers = archive['attention_per_layer'].transpose(0, 1)
    torch.testing.assert_close(attention.flatten(3), layers, **CLOSE)
    torch.testing.assert_close(attention.sum(1), archive['attention'], **CLOSE)
    torch.testing.assert_close(fused, archive['fused'], **CLOSE)


def test_gates_and_penalty_are_the_references(golden: Golden) -> None:
    archive = golden('pruned')
    model = from_reference(reference_state(archive['names'].tolist()), num_heads=4)
    blocks: list[Any] = list(model.blocks)
    gates = [block.attn.gate for block in blocks]
    soft = torch.stack([gate._soft() for gate in gates]).detach()
    hard = torch.stack([gate() for gate in gates]).detach()
    penalty = torch.stack([0.01 * gate.open_probability().sum() for gate in gates])
    shown = torch.from_numpy(archive['gates_eval'])
    expected = hard if set(shown.flatten().tolist()) <= {0.0, 1.0} else soft
    torch.testing.assert_close(expected, shown, **CLOSE)
    torch.testing.assert_close(
        penalty.detach().double(), torch.from_numpy(archive['gate_penalty']), **CLOSE
    )
    opened = hard.mean(dim=1).double()
    torch.testing.assert_close(
        opened, torch.from_numpy(archive['gate_open_fraction']), **CLOSE
    )


def test_lightning_prefix_and_wrong_files(golden: Golden) -> None:
    names = golden('unpruned')['names'].tolist()
    state = reference_state(names)
    prefixed = {f'model.{name}': value for name, value in state.items()}
    x = torch.rand(1, 13, 96, 96)
    assert torch.equal(from_reference(prefixed, 4)(x), from_reference(state, 4)(x))
    with pytest.raises(CheckpointError, match='are missing'):
        from_reference({'conv.weight': torch.zeros(1)})
    broken = {k: v for k, v in state.items() if 'blocks.2.mlp' not in k}
    with pytest.raises(CheckpointError, match='incomplete'):
        from_reference(broken, 4)
    with pytest.raises(CheckpointError, match='num_heads=7'):
        from_reference(state, 7)
    with pytest.raises(CheckpointError, match='do not make'):
        from_reference(state, 4, img_size=(64, 96))
    gated = reference_state(golden('pruned')['names'].tolist())
    with pytest.raises(CheckpointError, match='Expected num_heads=4'):
        from_reference(gated, 8)
