"""Packages that find clouds, as small as can be: bright pixels are clouds."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

S2CLOUDLESS = """
import numpy as np

class S2PixelCloudDetector:
    def __init__(self, threshold, average_over, dilation_size):
        assert (threshold, average_over, dilation_size) == (0.4, 4, 2)

    def get_cloud_probability_maps(self, data):
        assert data.ndim == 4 and data.shape[-1] == 10, data.shape
        # B11 brighter than B10, both of ten bands; blue is a reflectance of 0 to 1
        assert np.median(data[..., 8]) > np.median(data[..., 7])
        return np.clip(data[..., 1], 0, 1).astype('f4')

    def get_mask_from_prob(self, probability):
        return (probability > 0.4).astype('i1')
"""
OMNICLOUDMASK = """
import numpy as np

def predict_from_array(input_array, inference_device):
    assert inference_device == 'cpu'
    red, green, infrared = input_array
    if input_array.max() > 30_000:
        raise ConnectionError('no route to the hub')
    kinds = np.where(green > 4_000, 1, 0) + np.where(red > 9_000, 2, 0)
    return np.where(infrared == 0, 0, kinds)[None].astype('u1')
"""


@contextmanager
def cloud_packages(folder: Path) -> Iterator[None]:
    """Install them in a folder, which comes first on the path."""
    sources = {'s2cloudless': S2CLOUDLESS, 'omnicloudmask': OMNICLOUDMASK}
    for name, source in sources.items():
        (folder / name).mkdir(parents=True)
        (folder / name / '__init__.py').write_text(source)
        facts = folder / f'{name}-9.9.dist-info' / 'METADATA'
        facts.parent.mkdir()
        facts.write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n')
    others = [name for name in sys.modules if name.partition('.')[0] in sources]
    before = {name: sys.modules.pop(name) for name in others}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in sources:
            sys.modules.pop(name, None)
        sys.modules.update(before)
