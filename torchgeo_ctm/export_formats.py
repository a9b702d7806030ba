"""Files of a model for other programs: written, read back, held against PyTorch."""

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

#: What the extra ``onnx`` brings: writes, is asked by PyTorch's exporter, reads back.
LIBRARIES = ('onnx', 'onnxscript', 'onnxruntime')
#: Versions of ONNX's operators that PyTorch's exporter writes. 18 is the default, for
#: Deepness brings ONNX Runtime 1.17 at most, which knows 20 and no newer file format.
OPSETS = range(18, 24)
#: Largest difference of a score from PyTorch's that is accepted.
ALLOWED = 1e-4
#: Classes whose scores are this close share a pixel: either may win it.
TIE = 1e-5
Run = Callable[[Tensor], Tensor]


def record(module: nn.Module, image: Tensor) -> ExportedProgram:
    """Record a module's operations on images; the number of images stays free.

    Args:
        module: What takes ``image`` (B, bands, H, W) and returns one tensor.
        image: Two images to record it with.
    """
    # torch 2.7 refuses a number without a bound
    shapes = {'image': {0: Dim('batch', max=2**31 - 1)}}
    program = torch.export.export(module, (image,), dynamic_shapes=shapes, strict=False)
    for node in program.graph.nodes:
        # where on this machine the code lies
        node.meta.pop('stack_trace', None)
    return program


def to_onnx(program: ExportedProgram, opset: int, metadata: Mapping[str, Any]) -> bytes:
    """Return a recorded module as an ONNX file.

    Args:
        program: From :func:`record`; the input is named ``image``, the output
            ``scores``.
        opset: One of :data:`OPSETS`.
        metadata: Written as JSON, key by key.
    """
    import onnx

    # Not optimised: onnxscript takes the smallest number that posterior() adds, which
    # keeps 0 / 0 out, for nothing. ONNX Runtime optimises when it opens the file.
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
    # notes about where in Python something comes from; no older file format has them
    for noted in (*graph.input, *graph.output, *graph.node, *graph.initializer):
        del noted.metadata_props[:]
    # the oldest file format that has these operators, for programs with an older runtime
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
        program: From :func:`record`; forgets the images it was recorded with.
        metadata: Written as the extra file ``metadata.json``.
    """
    file = io.BytesIO()
    # or the images would be in the file
    program.example_inputs = None
    extra = {'metadata.json': json.dumps(metadata)}
    torch.export.save(program, file, extra_files=extra)
    return file.getvalue()


def _open_onnx(path: Path) -> Run:
    """Open an ONNX file with ONNX Runtime."""
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; it tells what it could not optimise
    try:
        session = onnxruntime.InferenceSession(
            path, options, providers=['CPUExecutionProvider']
        )
    except Exception as error:  # its own classes have no public name
        reason = ' '.join(str(error).split())[:200]
        raise OutputError(
            f'ONNX Runtime {onnxruntime.__version__} cannot open what was written, '
            f'which is thrown away ({reason}); nearest: --opset {OPSETS[0]}'
        ) from error
    return lambda image: torch.from_numpy(
        session.run(['scores'], {'image': image.numpy()})[0]
    )


def _open_pt2(path: Path) -> Run:
    """Open a file of ``torch.export``."""
    module: Run = torch.export.load(io.BytesIO(path.read_bytes())).module()
    return module


#: How a file is read back.
OPEN = {'.onnx': _open_onnx, '.pt2': _open_pt2}


def write(files: Mapping[Path, bytes], module: Run, windows: Tensor) -> float:
    """Write files that compute what *module* does; all of them, or none.

    Args:
        files: Content of each file; its suffix, .onnx or .pt2, says what it is.
        module: What they have to compute.
        windows: Images to compare on, two at least.

    Returns:
        The largest difference of a score.

    Raises:
        OutputError: If a file cannot be written or opened, or a score differs by more
            than :data:`ALLOWED`, or another class wins a pixel.
    """
    # one window, and many: the number of windows has to be free
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
        OutputError: If it is more than rounding.
    """
    difference = float((scores - expected).abs().max())
    chosen = expected.gather(1, scores.argmax(dim=1, keepdim=True))
    changed = int((expected.amax(dim=1, keepdim=True) - chosen > TIE).sum())
    # NaN is no number below anything
    if not difference <= ALLOWED or changed:
        raise OutputError(
            f"{path} was not written: its scores differ from PyTorch's by up to "
            f'{difference:.1e}, {ALLOWED:.0e} is allowed, and the class of {changed} of '
            f'{chosen.numel()} pixels changes; another --opset may do'
        )
    return difference
