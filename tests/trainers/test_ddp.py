"""Two processes train as one: plain ddp, which knows of no unused parameter."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from tests.conftest import tiny_task
from torchgeo_ctm.trainers import ClassTokenMaskingTask

PROCESSES = 2
STEPS = 3
CASES: dict[str, dict[str, Any]] = {
    'default': {},
    'mask_rate=0': {'mask_rate': 0.0},
    'masking starts later': {'mask_rate': [(1, 0.5)]},
    'no patch head': {'patch_loss_weight': 0.0, 'map_source': 'attention'},
    'diversity': {'diversity_weight': 0.1},
    'gates': {'pruning': {'penalty': 0.01}},
    'gates open until later': {'pruning': {'start_epoch': 1}},
    'multiclass': {'task': 'multiclass'},
    'checkpointing': {'grad_checkpointing': True},
}


class Training(nn.Module):
    """The training step as a forward pass, which is what Lightning gives to ddp."""

    def __init__(self, task: ClassTokenMaskingTask, idle: bool = False) -> None:
        super().__init__()
        self.task = task
        if idle:
            self.idle = nn.Parameter(torch.zeros(1))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        loss = self.task.training_step(batch, 0)
        assert loss is not None
        return loss


def train(rank: int, case: dict[str, Any], idle: bool = False) -> Tensor:
    """Take some steps; return the first and the last weights, (2, weights)."""
    task = tiny_task(**case)
    task.train()
    task.on_train_epoch_start()
    training = Training(task, idle)
    ddp = DistributedDataParallel(training)
    optimizer = torch.optim.SGD(training.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(rank)
    weights = [parameters_to_vector(training.parameters()).detach()]
    for _ in range(STEPS):
        batch = {
            'image': torch.rand((2, 13, 32, 32), generator=generator) * 4000,
            'label': torch.eye(3)[torch.randint(3, (2,), generator=generator)],
        }
        optimizer.zero_grad()
        torch.autograd.backward(ddp(batch))
        optimizer.step()
    weights.append(parameters_to_vector(training.parameters()).detach())
    return torch.stack(weights)


def process(rank: int, folder: Path) -> None:
    """Train every case; write what came out."""
    torch.set_num_threads(1)
    meeting = f'file://{folder / "meeting"}'
    distributed.init_process_group(
        'gloo', init_method=meeting, rank=rank, world_size=PROCESSES
    )
    weights = {name: train(rank, case) for name, case in CASES.items()}
    torch.save(weights, folder / f'{rank}.pt')
    try:
        train(rank, {}, idle=True)
    except RuntimeError as error:
        (folder / f'{rank}.json').write_text(json.dumps(str(error)))
    distributed.destroy_process_group()


@pytest.fixture(scope='module')
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('ddp')
    spawn(process, (folder,), nprocs=PROCESSES)  # type: ignore[no-untyped-call]
    return folder


@pytest.mark.slow
@pytest.mark.xdist_group('ddp')
@pytest.mark.parametrize('case', CASES)
def test_processes_learn_the_same_without_looking_for_unused(
    results: Path, case: str
) -> None:
    one, two = (torch.load(results / f'{rank}.pt')[case] for rank in range(PROCESSES))
    # their images differ, so equal weights come of averaged gradients
    assert torch.equal(one, two)
    assert not torch.equal(one[0], one[1])


@pytest.mark.slow
@pytest.mark.xdist_group('ddp')
def test_an_unused_parameter_would_be_noticed(results: Path) -> None:
    for rank in range(PROCESSES):
        error = json.loads((results / f'{rank}.json').read_text())
        assert 'parameters that were not used in producing loss' in error
