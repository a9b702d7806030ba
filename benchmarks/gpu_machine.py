"""What the stages of :mod:`benchmarks.gpu` share: the job, and readings of the machine.

Nothing here imports the package, so that a description of the machine is written even
where the package cannot be imported.
"""

import gc
import os
import platform
import re
import statistics
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import torch

ROOT = Path(__file__).parents[1]
#: Results of the stages that have finished, by name.
Results = Mapping[str, Mapping[str, Any]]
PACKAGES = (
    'torch',
    'torchvision',
    'torchgeo',
    'lightning',
    'timm',
    'numpy',
    'rasterio',
)


@dataclass(frozen=True)
class Job:
    """What to measure, and where.

    Attributes:
        device: 'cpu' or 'cuda'.
        tiny: Measure small networks and scenes, to test the benchmark itself.
        folder: Folder for scenes, checkpoints and products.
        golden: Folder of the golden vectors; it may be missing.
        seconds: Length of the real run at most.
        scene_side: Side of the large scene in pixels.
    """

    device: str
    tiny: bool
    folder: Path
    golden: Path
    seconds: float = 60
    scene_side: int = 10_980

    @property
    def accelerator(self) -> str:
        """The device in Lightning's words."""
        return 'cpu' if self.device == 'cpu' else 'gpu'

    @property
    def precision(self) -> str:
        """Precision of timed runs in Lightning's words."""
        return '32-true' if self.device == 'cpu' else 'bf16-mixed'

    @property
    def network(self) -> dict[str, Any]:
        """The image size and options of the large network."""
        if self.tiny:
            options = {'embed_dim': 16, 'depth': 2, 'num_heads': 2}
            return {'img_size': 32, 'options': options}
        return {'img_size': 224, 'options': {}}


def exact_float32() -> None:
    """Let float32 be float32: no TensorFloat-32 in products and convolutions."""
    torch.set_float32_matmul_precision('highest')
    torch.backends.cudnn.allow_tf32 = False


def synchronize(device: str) -> None:
    """Wait until the device has finished."""
    if device != 'cpu':
        torch.cuda.synchronize()


def reset_peaks(device: str) -> None:
    """Free cached memory of the device, and start new peaks of both memories."""
    gc.collect()
    if device != 'cpu':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path('/proc/self/clear_refs').write_text('5')  # resets VmHWM


def peaks(device: str) -> dict[str, float]:
    """Return the peaks since :func:`reset_peaks` in MB.

    Returns:
        ``host_memory_mb`` on Linux; ``device_memory_mb`` of tensors on a GPU.
    """
    result = {}
    with suppress(OSError):
        status = Path('/proc/self/status').read_text(encoding='ascii')
        if match := re.search(r'VmHWM:\s+(\d+) kB', status):
            result['host_memory_mb'] = int(match[1]) * 1024 / 1e6
    if device != 'cpu':
        result['device_memory_mb'] = torch.cuda.max_memory_allocated() / 1e6
    return result


class Utilization:
    """Sample the device's utilization, five times a second, in a thread.

    It needs NVIDIA's management library (``nvidia-ml-py``). Where it is missing,
    :meth:`result` is empty.
    """

    def __init__(self, device: str) -> None:
        """Find the device."""
        self._samples: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._library: Any = None
        with suppress(Exception):  # whatever its library raises
            if device != 'cpu':
                library = import_module('pynvml')
                library.nvmlInit()
                self._handle = library.nvmlDeviceGetHandleByIndex(0)
                self._library = library

    def _sample(self) -> None:
        """Take samples until told to stop."""
        while not self._stop.wait(0.2):
            with suppress(Exception):
                rates = self._library.nvmlDeviceGetUtilizationRates(self._handle)
                self._samples.append(int(rates.gpu))

    def __enter__(self) -> Self:
        """Start to sample."""
        if self._library is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._stop.set()
        if self._library is not None:
            self._thread.join()

    def result(self) -> dict[str, float]:
        """Return the mean and median utilization in percent, if there are samples."""
        if not self._samples:
            return {}
        return {
            'utilization_mean': statistics.fmean(self._samples),
            'utilization_median': statistics.median(self._samples),
        }


def describe(device: str) -> dict[str, Any]:
    """Return the names and versions of hardware and software."""
    result: dict[str, Any] = {
        'processor': platform.processor() or platform.machine(),
        'cores': os.cpu_count(),
        'threads': torch.get_num_threads(),
        'python': platform.python_version(),
    }
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            result[name] = version(name)
    if device != 'cpu':
        result['device'] = torch.cuda.get_device_name()
        result['device_memory_mb'] = torch.cuda.mem_get_info()[1] / 1e6
        result['cuda'] = torch.version.cuda
        with suppress(Exception):  # whatever its library raises
            library = import_module('pynvml')
            library.nvmlInit()
            result['driver'] = str(library.nvmlSystemGetDriverVersion())
    return result


def python_path() -> dict[str, str]:
    """Return the environment in which a new Python finds what this one finds."""
    return {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
