"""Export checkpoints to ONNX, which QGIS's Deepness reads, and to PyTorch's pt2.

Both take images in the data set's own numbers, because they include the scaling, and
return the scores that a scene is decided from.
"""

import importlib.util
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import ExportWarning, OutputError, SettingError
from .export_formats import ALLOWED, LIBRARIES, OPSETS, record, to_onnx, to_pt2, write
from .files import check_file, check_not_input
from .maps.class_maps import resize
from .scaling import SENTINEL2_BANDS, BandScaling, band_key, is_reflectance
from .trainers import ClassTokenMaskingTask, load_task
from .trainers.published import files_of, locate, sha256_of
from .version import __version__

#: Number of random windows drawn, and of those compared with PyTorch.
DRAWN, COMPARED = 24, 8


class Exported(NamedTuple):
    """Written files, and their comparison with PyTorch.

    ``difference`` is the largest difference of a score over ``windows`` random windows,
    of which ``several`` contain more than one class. Only in those can shares differ.
    """

    paths: list[Path]
    difference: float
    windows: int
    several: int


class WindowScores(nn.Module):
    """The scores that a scene is decided from, per pixel of its windows."""

    shifts: Tensor

    def __init__(
        self, task: ClassTokenMaskingTask, offset: float | None = None
    ) -> None:
        """Wrap a task.

        Args:
            task: A task in evaluation mode with rule 'argmax'.
            offset: Makes the input reflectance × 10,000, in place of the offset of the
                training data; None: the latter.
        """
        super().__init__()
        self.task = task
        trained: float = getattr(task.scaling, 'offset', 0.0)
        shift = 0.0 if offset is None else offset - trained
        shifts = [shift if is_reflectance(band) else 0.0 for band in task.bands]
        self.register_buffer('shifts', torch.tensor(shifts).view(-1, 1, 1))
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Return scores (B, C, H, W) of images (B, bands, H, W) in their own numbers.

        Scores are the shares of the present classes and sum to 1.
        """
        scores: Tensor = self.predict(image)['scores']
        return resize(scores, (image.shape[-2], image.shape[-1]))

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """Return the task's prediction of images, after adding the offset."""
        return self.task.predict_images({'image': image + self.shifts})


def export_model(
    checkpoint: str | Path,
    output: str | Path,
    *,
    img_size: int | None = None,
    opset: int = OPSETS[0],
    rule: Literal['argmax'] | None = None,
    offset: float | None = None,
    resolution: float | None = None,
    torch_export: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write the model of a checkpoint as ONNX.

    The file takes ``image`` (N, bands, size, size) float32 in the data set's own
    numbers and returns ``scores`` (N, C, size, size) float32: the shares of the present
    classes, as :meth:`ClassTokenMaskingTask.predict_images` returns them, resized to
    pixels. N is free, the size is fixed. The class with the largest score is the class
    of the pixel in a scene of this one window, without refinement. Heads closed by
    pruning are removed.

    The metadata are those of QGIS's plug-in Deepness
    (https://qgis-plugin-deepness.readthedocs.io, model creators), and our own.

    Args:
        checkpoint: Checkpoint of
            :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`.
        output: File to write (.onnx).
        img_size: Side of a window in pixels; None: that of a training chip.
        opset: Version of ONNX's operators, 18 to 23.
        rule: 'argmax' for a checkpoint with rule 'paint', which cannot be exported;
            None: the checkpoint's.
        offset: Added to reflectance bands to make them reflectance × 10,000, as −1000
            for Sentinel-2 processing baseline 04.00 and later; None: as in the
            training data.
        resolution: Meters per pixel to which Deepness resamples a layer; None: 10 for
            Sentinel-2's bands, else not set.
        torch_export: Also write the file's name with .pt2, for ``torch.export.load``.
        overwrite: Replace existing files.

    Returns:
        The files, and their comparison with PyTorch.

    Raises:
        OutputError: If a file cannot be written, a library is missing, or the scores
            differ from PyTorch's.
        CheckpointError: If the checkpoint cannot be used.
        SettingError: If an argument is outside its valid values, or the rule cannot be
            exported.
    """
    paths = _paths(Path(output), checkpoint, torch_export, overwrite)
    if opset not in OPSETS:
        raise SettingError(
            f'opset must be {OPSETS[0]} to {OPSETS[-1]}, got opset={opset}.'
        )
    task = _task(checkpoint, rule)
    size = _size(task, img_size)
    module = WindowScores(task, offset)
    metadata = _metadata(task, size, offset, resolution) | {
        'checkpoint': Path(checkpoint).name,
        'checkpoint_sha256': sha256_of(files_of(locate(checkpoint).path)[0]),
    }
    with torch.no_grad():
        windows, several = _windows(module, size)
        program = record(module, windows[:2])
        contents = [to_onnx(program, opset, metadata)]
        if torch_export:
            contents.append(to_pt2(program, metadata))
        difference = write(dict(zip(paths, contents, strict=True)), module, windows)
    return Exported(paths, difference, len(windows), several)


def _paths(
    output: Path, checkpoint: str | Path, torch_export: bool, overwrite: bool
) -> list[Path]:
    """Return the files to write, checked to be writable."""
    if output.suffix.lower() != '.onnx':
        near = output.with_suffix('.onnx').name
        raise OutputError(
            f'The output must end with .onnx, got {output}. Did you mean {near!r}?'
        )
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise OutputError(
            f'{output} requires {", ".join(missing)}. Run pip install '
            '"torchgeo-ctm[onnx]".'
        )
    paths = [output, *([output.with_suffix('.pt2')] if torch_export else [])]
    for path in paths:
        check_not_input(path, checkpoint)
        check_file(path, overwrite)
    return paths


def _task(checkpoint: str | Path, rule: str | None) -> ClassTokenMaskingTask:
    """Return the task of a checkpoint, with operators that ONNX has."""
    task = load_task(checkpoint)
    options = task.decoder.options
    if (rule or options.rule) != 'argmax':
        raise SettingError(
            f"{checkpoint} uses rule 'paint', which fills pixels by distance. ONNX has no "
            "such operator. Set rule to 'argmax', which uses the same class maps."
        )
    if options.refinement is not None:
        warnings.warn(
            f'{checkpoint} refines scores by {options.refinement!r}, which ONNX has no '
            'operators for. The scores before refinement are exported.',
            ExportWarning,
            stacklevel=3,
        )
    # one pass over each window, with the classes that the model predicts
    task.with_options(
        rule='argmax',
        ensemble=None,
        labels='predicted',
        refinement=None,
        refinement_options=None,
    )
    task.on_predict_start()
    return task


def _size(task: ClassTokenMaskingTask, img_size: int | None) -> int:
    """Return the side of a window in pixels, checked to be a multiple of a patch."""
    chip: int | tuple[int, int] = task.hparams['img_size']
    if img_size is None:
        img_size = chip if isinstance(chip, int) else max(chip)
    patch = task.model.patch_size
    if img_size < patch or img_size % patch:
        raise SettingError(
            f'img_size must be a multiple of the patch of {patch} px, got '
            f'img_size={img_size}. Use {max(1, round(img_size / patch)) * patch}.'
        )
    return img_size


def _metadata(
    task: ClassTokenMaskingTask,
    size: int,
    offset: float | None,
    resolution: float | None,
) -> dict[str, Any]:
    """Return Deepness's metadata, and ours."""
    if resolution is not None and not resolution > 0:
        raise SettingError(
            f'resolution must be positive, got resolution={resolution} m.'
        )
    known = {band_key(band) for band in SENTINEL2_BANDS}
    if resolution is None and known & {band_key(band) for band in task.bands}:
        resolution = 10.0
    trained: float = getattr(task.scaling, 'offset', 0.0)
    return {
        'model_type': 'Segmentor',
        'class_names': dict(enumerate(task.class_names)),
        # centimeters per pixel
        **({} if resolution is None else {'resolution': 100 * resolution}),
        'tile_size': size,
        # percent: half a window, as predict does. Deepness keeps the middle of each
        'tiles_overlap': 50,
        # Deepness passes (x / 255 - mean) / std, so the model gets x
        'standardization_mean': [0.0 for _ in task.bands],
        'standardization_std': [1 / 255 for _ in task.bands],
        # a threshold would turn low scores into class 0, and a filter change classes
        'seg_thresh': 0.0,
        'seg_small_segment': 0,
        'torchgeo_ctm_version': __version__,
        'bands': list(task.bands),
        'offset': trained if offset is None else offset,
        'class_colors': dict(enumerate(task.class_colors)),
        'map_source': task.decoder.options.source,
        'map_rule': task.decoder.options.rule,
        'presence_threshold': task.decoder.options.threshold,
    }


def _windows(module: WindowScores, size: int) -> tuple[Tensor, int]:
    """Return random windows in the data set's own numbers.

    Windows with a probability near the presence threshold, where rounding decides, are
    used last, and windows with several classes first.

    Returns:
        Windows (B, bands, size, size), and the number of those with several classes.
    """
    task, random = module.task, torch.Generator().manual_seed(0)
    fields = []
    for number in range(DRAWN):
        cells = min(2 ** (number % 4 + 1), size)
        coarse = torch.randn(1, len(task.bands), cells, cells, generator=random)
        fine = torch.randn(1, len(task.bands), size, size, generator=random)
        fields.append(F.interpolate(coarse, size=(size, size)) + 0.2 * fine)
    windows = torch.cat(fields)
    if isinstance(task.scaling, BandScaling):
        mean, std = task.scaling.mean, task.scaling.std
        if task.scaling.method == 'per_chip_maximum':
            mean, std = mean + 2000, std * 1000
        windows = windows * std + mean - task.scaling.offsets - module.shifts
    parts = torch.split(windows, COMPARED)
    probs = torch.cat([module.predict(part)['probs'] for part in parts])
    threshold = task.decoder.options.threshold
    clear = (probs - threshold).abs().amin(dim=1) > ALLOWED
    several = (probs > threshold).sum(dim=1) > 1
    order = (2 * clear.int() + several.int()).argsort(descending=True, stable=True)
    chosen = order[:COMPARED]
    return windows[chosen], int(several[chosen].sum())
