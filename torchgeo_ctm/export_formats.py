"""ONNX and pt2 files: written, read back and compared with PyTorch."""

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from .errors import OutputError
from .files import temporary_path
from .version import __version__

#: Libraries of the extra ``onnx``: they write, serve PyTorch's exporter, read back.
LIBRARIES = ('onnx', 'onnxscript', 'onnxruntime')
#: Versions of ONNX's operators that PyTorch's exporter writes. The default is 18,
#: because Deepness has ONNX Runtime 1.17 at most, which supports 20 and no newer format.
OPSETS = range(18, 24)
#: Largest accepted difference of a score from PyTorch's.
ALLOWED = 1e-4
#: Scores this close are a tie: either class may win the pixel.
TIE = 1e-5
Run = Callable[[Tensor], Tensor]


def record(module: nn.Module, image: Tensor) -> ExportedProgram:
    """Return the recorded operations of a module, for any number of images.

    Args:
        module: Maps ``image`` (B, bands, H, W) to one tensor.
        image: Two images to record it with.
    """
    # torch 2.7 refuses a number without a bound
    shapes = {'image': {0: Dim('batch', max=2**31 - 1)}}
    program = torch.export.export(module, (image,), dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        # paths of this machine
        node.meta.pop('stack_trace', None)
    return program


def to_onnx(program: ExportedProgram, opset: int, metadata: Mapping[str, Any]) -> bytes:
    """Return a recorded module as an ONNX file.

    Args:
        program: From :func:`record`; the input is named ``image``, the output
            ``scores``.
        opset: One of :data:`OPSETS`.
        metadata: Values are written as JSON.
    """
    import onnx

    # Not optimized: onnxscript would drop the smallest number that posterior() adds to
    # avoid 0 / 0. ONNX Runtime optimizes when it opens the file.
    exported = torch.onnx.export(
        program,
        dynamo=True,
        opset_version=opset,
        input_names=['image'],
        output_names=['scores'],
        optimize=False,
        verbose=False,
    )
    if exported is None:
        raise RuntimeError('torch.onnx.export returned no program')
    model = exported.model_proto
    graph = model.graph
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = 'batch'
    # notes about Python sources, which older file formats do not have
    for noted in (*graph.input, *graph.output, *graph.node, *graph.initializer):
        del noted.metadata_props[:]
    # the oldest file format with these operators, for programs with an older runtime
    model.ir_version = onnx.helper.find_min_ir_version_for(list(model.opset_import))
    model.producer_name, model.producer_version = 'torchgeo-ctm', __version__
    onnx.helper.set_model_props(
        model, {key: json.dumps(value) for key, value in metadata.items()}
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def to_pt2(program: ExportedProgram, metadata: Mapping[str, Any]) -> bytes:
    """Return a recorded module as a file of ``torch.export``.

    Args:
        program: From :func:`record`. Its example images are dropped.
        metadata: Written as the extra file ``metadata.json``.
    """
    file = io.BytesIO()
    # otherwise the images would be in the file
    program.example_inputs = None
    extra = {'metadata.json': json.dumps(metadata)}
    torch.export.save(program, file, extra_files=extra)
    return file.getvalue()


def _open_onnx(path: Path) -> Run:
    """Open an ONNX file with ONNX Runtime."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # its exceptions have no public name
        reason = ' '.join(str(error).split())[:200]
        raise OutputError(
            f'ONNX Runtime {onnxruntime.__version__} cannot open the exported file '
            f'({reason}). Use opset {OPSETS[0]}.'
        ) from error
    return lambda image: torch.from_numpy(
        session.run(['scores'], {'image': image.numpy()})[0]
    )


def _open_pt2(path: Path) -> Run:
    """Open a file of ``torch.export``."""
    module: Run = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return module


#: Readers by suffix.
OPEN = {'.onnx': _open_onnx, '.pt2': _open_pt2}


def write(files: Mapping[Path, bytes], module: Run, windows: Tensor) -> float:
    """Write files that compute what *module* does; all of them, or none.

    Args:
        files: Content of each file by path, with suffix .onnx or .pt2.
        module: The module.
        windows: At least two images to compare on.

    Returns:
        The largest difference of a score.

    Raises:
        OutputError: If a file cannot be written or opened, or a score differs by more
            than :data:`ALLOWED`, or another class wins a pixel.
    """
    # one window and several, because the number of windows is free
    parts = [windows[:1], windows[1:]]
    expected = torch.cat([module(part) for part in parts])
    difference = 0.0
    temporary = {path: temporary_path(path) for path in files}
    try:
        for path, content in files.items():
            temporary[path].write_bytes(content)
            run = OPEN[path.suffix.lower()](temporary[path])
            scores = torch.cat([run(part) for part in parts])
            difference = max(difference, _difference(path, scores, expected))
        for path in files:
            temporary[path].replace(path)
    except OSError as error:
        raise OutputError(f'Cannot write {path}: {error}') from error
    finally:
        for rest in temporary.values():
            rest.unlink(missing_ok=True)
    return difference


def _difference(path: Path, scores: Tensor, expected: Tensor) -> float:
    """Return the largest difference from PyTorch's scores (B, C, H, W).

    Raises:
        OutputError: If it is larger than rounding.
    """
    difference = float((scores - expected).abs().max())
    chosen = expected.gather(1, scores.argmax(dim=1, keepdim=True))
    changed = int((expected.amax(dim=1, keepdim=True) - chosen > TIE).sum())
    # NaN compares as false
    if not difference <= ALLOWED or changed:
        raise OutputError(
            f"{path} was not written: its scores differ from PyTorch's by up to "
            f'{difference:.1e}, expected at most {ALLOWED:.0e}, and the class of {changed} '
            f'of {chosen.numel()} pixels changes. Try another opset.'
        )
    return difference
