"""Stage a of :mod:`benchmarks.gpu`: whether the device computes what the CPU does."""

import json
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import lightning.pytorch as pl
import numpy as np
import timm
import torch
from numpy.random import Generator, Philox
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.gpu_machine import Job, Results, exact_float32, python_path
from benchmarks.reference_fusion import ReferenceFusion
from benchmarks.tile import recommended_arguments
from benchmarks.training import NO_TRAINER, Setting, make_batch, make_task
from torchgeo_ctm.errors import LabelWarning
from torchgeo_ctm.losses import DiversityForm, PatchPooling
from torchgeo_ctm.models.reference import from_reference
from torchgeo_ctm.scaling import SENTINEL2_BANDS
from torchgeo_ctm.trainers import ClassTokenMaskingTask, save_task
from torchgeo_ctm.trainers.options import regrouped

TOLERANCE = 1e-4
#: Warnings that are not about the step: Lightning's advice, its own use of a deprecated
#: name of PyTorch, and the validation metric of classes that two chips do not show.
ADVICE = (
    'does not have many workers',
    'treespec, LeafSpec',
    'Average precision score for one or more classes was `nan`',
)
#: Loss options by name; every pooling and diversity form is added.
OPTIONS: dict[str, dict[str, Any]] = {
    'plateau': {'schedule': 'plateau'},
    'no patch head': {'patch_loss_weight': 0.0, 'map_source': 'attention'},
    'pooling warm-up': {'patch_pooling': 'share', 'patch_pooling_warmup': 0.5},
    'self-training': {'self_training': {'start': 0.0}},
    'multiclass': {'task': 'multiclass'},
    'class weights': {'class_weights': [1.0, 2.0] * 4},
    'pruning': {'pruning': {'penalty': 0.01}},
    'mask rate schedule': {'mask_rate': [[0, 0.2], [1, 0.5]]},
    'calibration by odds': {'calibration': 'odds'},
    'calibration by validation': {'calibration': 'validation'},
    'checkpointing': {'grad_checkpointing': True},
    'layer decay': {'layer_decay': 0.75},
    'SGD': {'optimizer': 'sgd'},
    'Adam': {'optimizer': 'adam'},
    'convolutional stem': {'model_options': {'stem': 'conv'}},
    'token head': {'model_options': {'head': 'token'}},
    'local patch head': {
        'patches': {'head': 'local', 'pooling': 'share', 'share': 0.25, 'balance': 0.5},
        'maps': {'source': 'patches', 'presence': 'all'},
        'attention': {'distillation_weight': 1.0},
    },
    'competing classes': {'patches': {'pooling': 'share', 'compete': True}},
    'softmax': {'model_options': {'patch_activation': 'softmax'}},
    'refinement': {'refinement': 'soft_assignment', 'presence': 'probability'},
    'paint': {'map_rule': 'paint'},
}
LOAD = """
import json, sys, torch
from torchgeo_ctm.trainers import load_task
given = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    error = (load_task(sys.argv[1])(given['image']) - given['logits']).abs().max()
print(json.dumps({'error': float(error), 'cuda': torch.cuda.is_available()}))
"""


def _sharpened(task: ClassTokenMaskingTask) -> ClassTokenMaskingTask:
    """Sharpen untrained attention, which is nearly flat, so that patches differ."""
    for attention in task.model.attentions:
        attention.qkv.weight.data *= 2
    return task


def _error(given: Tensor, expected: Tensor) -> float:
    """Return the largest difference, as a share of the largest absolute value."""
    given, expected = given.cpu().double(), expected.cpu().double()
    return float((given - expected).abs().max() / expected.abs().max())


def _outputs(device: str, job: Job) -> dict[str, Any]:
    """Return what a network computes on a device, from the same weights and images."""
    setting = Setting(4, **job.network)
    batch = {key: value.to(device) for key, value in make_batch(setting).items()}
    task = _sharpened(make_task(setting)).to(device)
    with torch.no_grad():
        named = zip(
            ('logit', 'map', 'patch_logit'),
            task.model.forward_attention(batch['scaled']),
        )
        result: dict[str, Any] = dict(named)
    drops: list[Tensor] = []
    forward = task.model.forward_logits

    def recorded(x: Tensor, drop: Tensor | None = None, patches: bool = True) -> Any:
        if drop is not None:
            drops.append(drop.cpu())
        return forward(x, drop, patches)

    task.model.forward_logits = recorded  # type: ignore[method-assign]
    given = {key: batch[key] for key in ('image', 'mask')}
    losses = []
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=NO_TRAINER)
        for _ in range(3):
            loss = task.training_step(given, 0)
            assert loss is not None  # every chip has a label
            torch.autograd.backward(loss)
            losses.append(loss.detach())
    gradients = [p.grad.flatten() for p in task.parameters() if p.grad is not None]
    result['loss'] = torch.stack(losses)
    result['gradient'] = torch.cat(gradients)
    result['drops'] = torch.stack(drops)
    return result


def equal_outputs(job: Job, _: Results) -> dict[str, Any]:
    """Compare logits, maps, gradients and masking in float32 with the CPU's.

    Returns:
        Largest errors by output, as shares of its largest value; ``largest_map``;
        ``same_masking``; ``tokens_masked`` of three steps; ``within_tolerance``.
    """
    exact_float32()
    expected, given = _outputs('cpu', job), _outputs(job.device, job)
    drops = expected.pop('drops'), given.pop('drops')
    errors = {f'{key}_error': _error(given[key], expected[key]) for key in expected}
    return {
        **errors,
        'largest_map': float(expected['map'].max()),
        'same_masking': torch.equal(*drops),
        'tokens_masked': int(drops[0].sum()),
        'within_tolerance': max(errors.values()) <= TOLERANCE,
    }


def recommended_task(job: Job, **options: Any) -> ClassTokenMaskingTask:
    """Return an untrained task with the recommended setting, but for some options."""
    size = {'embed_dim': 32, 'depth': 1} if job.tiny else {}
    torch.manual_seed(0)
    arguments = recommended_arguments(32 if job.tiny else 128, **size)
    return ClassTokenMaskingTask(**arguments, **options)


def equal_refinement(job: Job, _: Results) -> dict[str, Any]:
    """Compare refined scores in float32 with the CPU's, on a batch of stripes.

    Returns:
        ``score_error``, the largest; ``equal_pixels``, the share of pixels with the
        same class; and ``within_tolerance``.
    """
    exact_float32()
    task = _sharpened(recommended_task(job)).eval()
    setting = Setting(4, 32 if job.tiny else 128)
    batch = make_batch(setting)
    rise = 1 + batch['mask'][:, None] / 8
    image = batch['image'] * 0.1 + 1000 * rise  # bands that tell the classes apart
    with torch.no_grad():
        expected = task.predict_images({'image': image})['scores']
        given = task.to(job.device).predict_images({'image': image.to(job.device)})
    scores = given['scores'].cpu()
    error = _error(scores, expected)
    equal = scores.argmax(dim=1) == expected.argmax(dim=1)
    return {
        'score_error': error,
        'equal_pixels': float(equal.float().mean()),
        'within_tolerance': error <= TOLERANCE,
    }


def checkpoint_loads(job: Job, _: Results) -> dict[str, Any]:
    """Train a step on the device, save, and load where no GPU is visible.

    Returns:
        ``logit_error``: largest difference of the CPU's logits from the device's;
        ``gpu_visible`` where it was loaded; and ``within_tolerance``.
    """
    exact_float32()
    batch = make_batch(Setting(2, 32 if job.tiny else 128, device=job.device))
    # a cosine would ask a trainer how long it is
    task = recommended_task(job, optimization={'schedule': 'plateau'}).to(job.device)
    task.on_train_epoch_start()
    configured: Any = task.configure_optimizers()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=NO_TRAINER)
        loss = task.training_step({'image': batch['image'], 'mask': batch['mask']}, 0)
    assert loss is not None  # every chip has a label
    torch.autograd.backward(loss)
    configured['optimizer'].step()
    path, tensors = job.folder / 'step.ckpt', job.folder / 'step.pt'
    with torch.no_grad():
        logits = task.eval()(batch['image'])
    save_task(task.to(job.device), path)
    torch.save({'image': batch['image'].cpu(), 'logits': logits.cpu()}, tensors)
    done = subprocess.run(
        [sys.executable, '-c', LOAD, str(path), str(tensors)],
        env=python_path() | {'CUDA_VISIBLE_DEVICES': ''},
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    told = json.loads(done.stdout.splitlines()[-1])
    return {
        'logit_error': told['error'],
        'gpu_visible': told['cuda'],
        'within_tolerance': told['error'] <= TOLERANCE,
    }


def _reference_state(names: list[str]) -> dict[str, Tensor]:
    """Return the weights of the golden files by the recipe of METHOD, section 7."""
    state = {}
    for entry in names:
        name, _, shape = entry.partition(' ')
        size = tuple(int(n) for n in shape.strip('()').split(',') if n.strip())
        rng = Generator(Philox(key=zlib.crc32(f'0:{name}'.encode())))
        values = (rng.standard_normal(size) * 0.05).astype(np.float32)
        if 'norm' in name and name.endswith('weight'):
            values = 1 + values
        state[name] = torch.from_numpy(values * (40 if name.endswith('log_a') else 1))
    return state


def golden_vectors(job: Job, _: Results) -> dict[str, Any]:
    """Compare with the outputs of the reference network.

    Returns:
        Largest error of each output, by file; ``within_tolerance`` (1e-4). Or
        ``skipped``, where the files are missing.
    """
    if not (job.golden / 'unpruned.npz').is_file():
        return {'skipped': 'the golden vectors are not here; pass --golden FOLDER'}
    exact_float32()
    result: dict[str, Any] = {}
    for name in ('unpruned', 'pruned'):
        with np.load(job.golden / f'{name}.npz') as archive:
            arrays = dict(archive)
        expected = {
            key: torch.from_numpy(value).to(job.device)
            for key, value in arrays.items()
            if value.dtype.kind in 'fb'
        }
        state = _reference_state(arrays['names'].tolist())
        model = from_reference(state, num_heads=4).to(job.device)
        fusion = ReferenceFusion(state, model).to(job.device)
        drop = expected['drop'] & (expected['labels'] == 0)
        image = expected['image']
        with torch.no_grad():
            logits, attention, _patches = model.forward_attention(image, gated=False)
            given = {
                'probs': logits.sigmoid(),
                'probs_masked': model(image, drop).sigmoid(),
                'attention': attention.sum(1),
                'fused': fusion(image),
            }
        result[name] = {key: _error(given[key], expected[key]) for key in given}
    largest = max(max(errors.values()) for errors in result.values())
    return result | {'within_tolerance': largest <= TOLERANCE}


def _options() -> dict[str, dict[str, Any]]:
    """Return what to try by name: every pooling, form, option and network."""
    tried = dict(OPTIONS)
    tried |= {f'pooling {p}': {'patch_pooling': p} for p in get_args(PatchPooling)}
    tried |= {
        f'diversity {form}': {'diversity_weight': 0.1, 'diversity_form': form}
        for form in get_args(DiversityForm)
    }
    return tried | {name: {'model': name} for name in timm.list_models('ctm_vit_*')}


def _fit(job: Job, options: dict[str, Any]) -> None:
    """Take a training step and a validation step through Lightning's trainer."""
    chosen = dict(options)
    small = job.tiny or 'model' not in options
    if small:  # of the networks themselves nothing is left out, unless they are a test
        less = {'embed_dim': 32, 'depth': 2, 'num_heads': 2}
        chosen['model_options'] = less | options.get('model_options', {})
    least = 28 if 'patch14' in str(options.get('model')) else 32
    size = least if small else 224
    defaults = {
        'model': 'ctm_vit_tiny_patch8_224',
        'schedule': 'cosine',
        'bands': list(SENTINEL2_BANDS),
    }
    task = ClassTokenMaskingTask(**regrouped({**defaults, **chosen, 'img_size': size}))
    batch = make_batch(Setting(2, size))
    samples = [
        {key: batch[key][index] for key in ('image', 'mask')} for index in range(2)
    ]
    loader: Any = DataLoader(samples, batch_size=2)  # type: ignore[arg-type]
    trainer = pl.Trainer(
        accelerator=job.accelerator, devices=1, precision=job.precision, max_epochs=1,  # type: ignore[arg-type]
        logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(task, loader, loader)
    if not np.isfinite(float(trainer.callback_metrics['train_loss'])):
        raise ValueError('the loss is not finite')


def _fault(run: Callable[[], None]) -> str:
    """Return the first warning or the error of a run in one line; '' without."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        # two chips show few classes
        warnings.simplefilter('ignore', LabelWarning)
        try:
            run()
        except Exception as error:  # noqa: BLE001 - it is a result
            return ' '.join(f'{type(error).__name__}: {error}'.split())[:300]
    told = [' '.join(str(warning.message).split()) for warning in caught]
    told = [line for line in told if not any(part in line for part in ADVICE)]
    return told[0][:300] if told else ''


def every_option(job: Job, _: Results) -> dict[str, Any]:
    """Take a step with every registered network, loss option and pooling.

    Returns:
        ``steps_taken``; ``faults``: the first warning or the error by option.
    """
    tried = _options()
    faults = {
        name: _fault(partial(_fit, job, options)) for name, options in tried.items()
    }
    return {
        'steps_taken': len(tried),
        'faults': {name: line for name, line in faults.items() if line},
    }
