"""Bring chips to one size, and augment training batches."""

from typing import Any, Literal

import kornia.augmentation as K
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from ..errors import LabelError, SettingError
from ..grids import IGNORED

#: Probability that a part of a mixed chip is replaced.
REPLACED = 0.7

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


class MixTiles(nn.Module):
    """Put chips together from parts of several tiles, along straight borders.

    A tile with one label shows one class only, and a network that never sees two
    classes in one chip learns tiles instead of pixels. One row and one column cut a
    chip into four parts, and three of them are replaced, each with a probability of
    0.7, by the same part of another chip of the batch. Pixels keep their values. The
    label becomes the union of the labels of all parts.

    For ``train_aug`` of any data module whose chips have one label. Random numbers come
    from PyTorch's global generator, so that a seed repeats them.
    """

    def __init__(self, probability: float, num_classes: int) -> None:
        """Initialize a new MixTiles instance.

        Args:
            probability: Probability, 0 to 1, that a chip is mixed.
            num_classes: Number of classes C.

        Raises:
            SettingError: If *probability* is not 0 to 1.
        """
        super().__init__()
        if not 0 <= probability <= 1:
            raise SettingError(f'mix_tiles must be 0 to 1, got {probability}.')
        self.probability = probability
        self.num_classes = num_classes

    def forward(self, batch: Batch) -> Batch:
        """Return the mixed batch, with ``label`` float32 (B, C).

        Args:
            batch: ``image`` (B, bands, H, W); ``label``, (B,) class indices or (B, C)
                one-hot; and optionally ``mask`` and ``valid`` (B, H, W).

        Raises:
            LabelError: If a chip has no label, or more than one.
        """
        label = self._single_labels(batch)
        keys = [key for key in ('image', 'mask', 'valid') if key in batch]
        mixed = {key: batch[key].clone() for key in keys}
        union = label.clone()
        count, (height, width) = len(label), batch['image'].shape[-2:]
        for chip in torch.nonzero(torch.rand(count) < self.probability).flatten():
            row, col = (
                int(torch.randint(side // 4, max(3 * side // 4, side // 4 + 1), ()))
                for side in (height, width)
            )
            top, bottom = slice(0, row), slice(row, height)
            left, right = slice(0, col), slice(col, width)
            for rows, cols in ((top, right), (bottom, left), (bottom, right)):
                if torch.rand(()) < REPLACED:
                    other = int(torch.randint(count, ()))
                    for key in keys:
                        part = batch[key][other, ..., rows, cols]
                        mixed[key][chip, ..., rows, cols] = part
                    union[chip] = torch.maximum(union[chip], label[other])
        return batch | mixed | {'label': union}

    def _single_labels(self, batch: Batch) -> Tensor:
        """Return the labels of a batch as one-hot (B, C) float32."""
        label = batch.get('label')
        found = 'no label'
        if label is not None and label.ndim == 1:
            return one_hot(label, self.num_classes).float()
        if label is not None:
            known = batch.get('label_known')
            counts = (label > 0).sum(dim=1)
            if (counts == 1).all() and (known is None or known.all()):
                return torch.as_tensor(label).float()
            found = f'a chip with {int(counts[(counts != 1).int().argmax()])} labels'
            if known is not None and not known.all():
                found = 'a chip with unknown labels'
        raise LabelError(
            f'mix_tiles requires exactly one label a chip, got {found}. Set mix_tiles: 0.'
        )


def augmentation(
    upright: bool = False, mix_tiles: float = 0.0, num_classes: int = 0
) -> nn.Module:
    """Return the augmentation of training batches, for ``train_aug``.

    Args:
        upright: For photographs, which have an up: flip left-right only. Imagery seen
            from above has none, and takes all eight orientations.
        mix_tiles: Probability, 0 to 1, that a chip is mixed from several, see
            :class:`MixTiles`.
        num_classes: Number of classes, to mix chips.

    Raises:
        SettingError: If *mix_tiles* is not 0 to 1.
    """
    oriented = Augmentation(RandomOrientation(upright))
    if mix_tiles == 0:
        return oriented
    return nn.Sequential(oriented, MixTiles(mix_tiles, num_classes))


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
