"""A checkpoint for other programs: ONNX, as QGIS's Deepness reads it, and PyTorch's pt2.

Both take images in the data set's own numbers, for scaling is inside, and return what a
scene is decided from.
"""

import hashlib
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
from .version import __version__

#: How many random windows are drawn, and how many of them are compared.
DRAWN, COMPARED = 24, 8


class Exported(NamedTuple):
    """What was written, and how it was held against PyTorch.

    ``difference`` is the largest of any score, over ``windows`` random windows, of
    which ``several`` hold more than one class: only there can shares differ.
    """

    paths: list[Path]
    difference: float
    windows: int
    several: int


class WindowScores(nn.Module):
    """The scores of windows, as a scene is decided from them, pixel by pixel."""

    shifts: Tensor

    def __init__(
        self, task: ClassTokenMaskingTask, offset: float | None = None
    ) -> None:
        """Wrap a task.

        Args:
            task: A task in evaluation mode that decides by rule 'argmax'.
            offset: Makes the input reflectance × 10,000, in place of the offset of the
                training data; None keeps that one.
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

        Scores are the shares of the present classes, which sum to 1.
        """
        scores: Tensor = self.predict(image)['scores']
        return resize(scores, (image.shape[-2], image.shape[-1]))

    def predict(self, image: Tensor) -> dict[str, Tensor]:
        """Return what the task predicts of images, offset included."""
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
    """Write the model of a checkpoint for other programs.

    The file takes ``image`` (N, bands, size, size) float32 in the data set's own
    numbers, and returns ``scores`` (N, C, size, size) float32: the shares of the present
    classes, as :meth:`ClassTokenMaskingTask.predict_images` returns them, resized to
    pixels. N is free, the size is fixed. The largest score is the class that a scene of
    this one window gets, before any refinement. Heads that pruning has closed are taken
    out.

    Metadata are those of QGIS's plug-in Deepness
    (https://qgis-plugin-deepness.readthedocs.io, model creators), and our own.

    Args:
        checkpoint: Checkpoint of
            :class:`~torchgeo_ctm.trainers.ClassTokenMaskingTask`.
        output: File to write (.onnx).
        img_size: Side of a window in pixels; None: the training chip's.
        opset: Version of ONNX's operators, 18 to 23.
        rule: 'argmax' for a checkpoint whose own rule, 'paint', cannot be exported;
            None: the checkpoint's.
        offset: Added to reflectance bands to make them reflectance × 10,000, as −1000
            for Sentinel-2 processing baseline 04.00 and later; None: as in the
            training data.
        resolution: Metres per pixel that Deepness brings a layer to; None: 10 for
            Sentinel-2's bands, else unsaid.
        torch_export: Also write the file's name with .pt2, for ``torch.export.load``.
        overwrite: Replace existing files.

    Returns:
        The files, and how far they are from PyTorch.

    Raises:
        OutputError: If a file cannot be written, a library is missing, or the scores
            are not PyTorch's.
        CheckpointError: If the checkpoint cannot be used.
        SettingError: If an argument is outside its valid values, or the rule cannot be
            exported.
    """
    paths = _paths(Path(output), checkpoint, torch_export, overwrite)
    if opset not in OPSETS:
        near = min(max(opset, OPSETS[0]), OPSETS[-1])
        raise SettingError(
            f'opset={opset} is not one of {OPSETS[0]} to {OPSETS[-1]}; nearest: {near}'
        )
    task = _task(checkpoint, rule)
    size = _size(task, img_size)
    module = WindowScores(task, offset)
    metadata = _metadata(task, size, offset, resolution) | {
        'checkpoint': Path(checkpoint).name,
        'checkpoint_sha256': _sha256(checkpoint),
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
    """Return the files to write, if they can be written."""
    if output.suffix.lower() != '.onnx':
        near = output.with_suffix('.onnx').name
        raise OutputError(f'{output} is not a .onnx name; nearest: {near}')
    missing = [name for name in LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise OutputError(
            f'{output} needs {", ".join(missing)}: pip install "torchgeo-ctm[onnx]"'
        )
    paths = [output, *([output.with_suffix('.pt2')] if torch_export else [])]
    for path in paths:
        check_not_input(path, checkpoint)
        check_file(path, overwrite)
    return paths


def _task(checkpoint: str | Path, rule: str | None) -> ClassTokenMaskingTask:
    """Return the checkpoint's task as ``torchgeo-ctm predict`` runs it."""
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
    """Return the side of a window in pixels, if the model's patches fit it."""
    chip: int | tuple[int, int] = task.hparams['img_size']
    if img_size is None:
        img_size = chip if isinstance(chip, int) else max(chip)
    patch = task.model.patch_size
    if img_size < patch or img_size % patch:
        raise SettingError(
            f'img_size={img_size} px is not a multiple of the patch of {patch} px; '
            f'nearest: {max(1, round(img_size / patch)) * patch}'
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
        raise SettingError(f'resolution={resolution} m is not positive; nearest: 10')
    known = {band_key(band) for band in SENTINEL2_BANDS}
    if resolution is None and known & {band_key(band) for band in task.bands}:
        resolution = 10.0
    trained: float = getattr(task.scaling, 'offset', 0.0)
    return {
        'model_type': 'Segmentor',
        'class_names': dict(enumerate(task.class_names)),
        # centimetres per pixel
        **({} if resolution is None else {'resolution': 100 * resolution}),
        'tile_size': size,
        # per cent: half a window, as predict does; Deepness keeps the middle of each
        'tiles_overlap': 50,
        # Deepness gives (x / 255 - mean) / std: so the model gets x
        'standardization_mean': [0.0 for _ in task.bands],
        'standardization_std': [1 / 255 for _ in task.bands],
        # scores below a threshold would become class 0, and a filter change classes
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


def _sha256(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _windows(module: WindowScores, size: int) -> tuple[Tensor, int]:
    """Draw random windows in the input's own numbers.

    Of many, those are taken in which no probability is near the presence threshold,
    where rounding alone decides, and before them those with several classes.

    Returns:
        Windows (B, bands, size, size), and how many of them hold several classes.
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
