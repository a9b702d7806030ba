"""Bring chips to one size, and augment training batches."""

from typing import Any, Literal

import kornia.augmentation as K
import torch
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ..grids import IGNORED

Batch = dict[str, Any]
Resize = Literal['stretch', 'cover']


class RandomOrientation(K.GeometricAugmentationBase2D):
    """Flip and turn chips at random: all eight orientations are equally likely.

    Chips that are not square are only flipped, which leaves four orientations. Pixels
    are moved, never interpolated. (kornia's own ``RandomRotation90`` interpolates and
    draws its four rotations with unequal probability.)
    """

    def __init__(self, upright: bool = False) -> None:
        """Initialize a new RandomOrientation instance.

        Args:
            upright: Keep the top of an image at its top: flip left-right only.
        """
        super().__init__(p=1.0)
        self.upright = upright

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        """Draw which steps to apply.

        Args:
            batch_shape: Shape of the batch, (B, C, H, W).

        Returns:
            ``steps``, boolean (B, 3): flip left-right, flip up-down, transpose.
        """
        steps = torch.rand(batch_shape[0], 3) < 0.5
        steps[:, 1] &= not self.upright
        steps[:, 2] &= not self.upright and batch_shape[-2] == batch_shape[-1]
        return {'steps': steps}

    def compute_transformation(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]
    ) -> Tensor:
        """Return the matrices (B, 3, 3) that move pixel coordinates (x, y, 1)."""
        height, width = input.shape[-2:]
        matrices = [
            [[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]],
            [[1, 0, 0], [0, -1, height - 1], [0, 0, 1]],
            [[0, 1, 0], [1, 0, 0], [0, 0, 1]],
        ]
        taken = params['steps'].cpu()[:, :, None, None]
        steps = torch.where(taken, torch.tensor(matrices), torch.eye(3).long())
        left_right, up_down, transpose = steps.unbind(1)
        return (transpose @ up_down @ left_right).to(input)

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        """Reorient images or masks (B, C, H, W), in place.

        A new batch would take three times as long: most of it is memory that has to be
        found first.
        """
        for chip, steps in zip(input, params['steps'].tolist(), strict=True):
            if any(steps):
                axes = [axis for axis, flip in zip((-1, -2), steps[:2]) if flip]
                flipped = chip.flip(axes)
                chip.copy_(flipped.transpose(-2, -1) if steps[2] else flipped)
        return input


class Augmentation(nn.Module):
    """Augment ``image``, ``mask`` and ``valid`` of a batch alike.

    Masks are never interpolated and keep their type. Every other key, such as
    ``label``, stays as it is. Random numbers come from PyTorch's global generator, so
    that a seed repeats them.
    """

    def __init__(self, *steps: K.AugmentationBase2D) -> None:
        """Initialize a new Augmentation instance.

        Args:
            *steps: Augmentations of kornia, applied in this order.
        """
        super().__init__()
        self.steps: Any = K.AugmentationSequential(*steps, data_keys=None, keepdim=True)

    def forward(self, batch: Batch) -> Batch:
        """Return the augmented batch.

        Args:
            batch: ``image`` float (B, C, H, W), and optionally ``mask`` integer
                (B, H, W) and ``valid`` boolean (B, H, W). The image may be changed in
                place.
        """
        # kornia recognizes masks by the first part of their keys
        names = {'image': 'image', 'mask': 'mask', 'valid': 'mask_valid'}
        given = {name: batch[key] for key, name in names.items() if key in batch}
        if 'mask_valid' in given:
            given['mask_valid'] = given['mask_valid'].byte()
        moved = self.steps(given)
        # kornia before 0.9 returns masks as floats
        pixels = {
            key: moved[name].to(batch[key].dtype)
            for key, name in names.items()
            if name in moved
        }
        return batch | pixels


def augmentation(upright: bool = False) -> Augmentation:
    """Return the augmentation of training batches, for ``train_aug``.

    Args:
        upright: For photographs, which have an up: flip left-right only. Imagery seen
            from above has none, and takes all eight orientations.
    """
    return Augmentation(RandomOrientation(upright))


class FitChip:
    """Bring a sample's image and mask to the size of a chip.

    Samples of different sizes form no batch, so this is a transform of the data set and
    not a step of :class:`Augmentation`. Images are resized bilinearly with
    antialiasing, masks by the nearest pixel.
    """

    def __init__(
        self, size: tuple[int, int], resize: Resize | None = None, train: bool = False
    ) -> None:
        """Create the transform.

        Args:
            size: Height and width of the chip in pixels.
            resize: 'stretch' resizes the whole image to the chip; 'cover' resizes it
                until it covers the chip, keeps its proportions, and crops; None crops
                without resizing. Images smaller than the chip are padded with 0, their
                masks with 255.
            train: Crop at random instead of in the center.
        """
        self.size = size
        self.resize = resize
        self.train = train

    def __call__(self, sample: Batch) -> Batch:
        """Return the sample with ``image``, and ``mask`` if it has one, fitted."""
        height, width = sample['image'].shape[-2:]
        size = self._resized(height, width)
        corner = [self._corner(have, want) for have, want in zip(size, self.size)]
        fitted = {'image': self._fit(sample['image'], size, corner, 0)}
        if 'mask' in sample:
            mask = self._fit(sample['mask'][None], size, corner, IGNORED)
            fitted['mask'] = mask[0]
        return sample | fitted

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of an image before the crop."""
        if self.resize is None:
            return height, width
        if self.resize == 'stretch':
            return self.size
        scale = max(self.size[0] / height, self.size[1] / width)
        rows, cols = (round(side * scale) for side in (height, width))
        return max(self.size[0], rows), max(self.size[1], cols)

    def _corner(self, have: int, want: int) -> int:
        """Return where the chip begins along one axis; negative if it is padded."""
        if self.train and have > want:
            return int(torch.randint(have - want + 1, ()))
        return round((have - want) / 2) if have > want else -((want - have) // 2)

    def _fit(
        self, pixels: Tensor, size: tuple[int, int], corner: list[int], fill: int
    ) -> Tensor:
        """Return pixels (C, H, W) resized to *size* and cropped or padded at *corner*."""
        if pixels.shape[-2:] != size:
            nearest = fill == IGNORED
            mode = InterpolationMode.NEAREST if nearest else InterpolationMode.BILINEAR
            pixels = F.resize(pixels, list(size), mode, antialias=not nearest)
        before = [max(0, -start) for start in corner]
        after = [
            max(0, want - have - first)
            for want, have, first in zip(self.size, size, before)
        ]
        if any(before + after):
            sides = [before[1], before[0], after[1], after[0]]
            pixels = F.pad(pixels, sides, fill=fill)
        fitted: Tensor = F.crop(
            pixels, *(max(0, start) for start in corner), *self.size
        )
        return fitted
