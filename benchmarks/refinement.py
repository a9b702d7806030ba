"""What refinement costs: seconds a megapixel, by side of the window.

Each figure is the median over rounds; an image of 13 bands, eight classes.

    python benchmarks/refinement.py --json benchmarks/results/refinement.json
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from torchgeo_ctm.maps.class_maps import posterior
from torchgeo_ctm.maps.refine import soft_assignment

BANDS, CLASSES, PATCH, PIXELS = 13, 8, 8, 1 << 20


def seconds(side: int, rounds: int) -> float:
    """Return the seconds that a megapixel in windows of this side takes."""
    generator = torch.Generator().manual_seed(0)
    windows = max(1, round(PIXELS / side**2 / 16))
    images = torch.randn(windows, BANDS, side, side, generator=generator)
    maps = torch.rand(windows, CLASSES, *2 * (side // PATCH,), generator=generator)
    scores = posterior(maps, torch.ones(windows, CLASSES, dtype=torch.bool))
    taken = []
    with torch.inference_mode():
        soft_assignment(scores, images)
        for _ in range(rounds):
            start = time.perf_counter()
            soft_assignment(scores, images)
            taken.append(time.perf_counter() - start)
    return statistics.median(taken) / (windows * side**2) * 1e6


def run(sides: tuple[int, ...] = (64, 128, 224), rounds: int = 5) -> dict[str, Any]:
    """Measure every side."""
    return {
        'seconds_per_megapixel': {str(side): seconds(side, rounds) for side in sides},
        'machine': {'cores': os.cpu_count(), 'threads': torch.get_num_threads()},
    }


def main() -> None:
    """Read the arguments, measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path, help='also write the result here')
    target = parser.parse_args().json
    report = json.dumps(run(), indent=2) + '\n'
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(report, encoding='utf-8')
    sys.stdout.write(report)


if __name__ == '__main__':
    main()
