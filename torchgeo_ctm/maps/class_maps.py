"""Class maps from attention and patch logits, and masks from class maps."""

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError, did_you_mean

MapSource = Literal['attention', 'patchcam', 'fused', 'patches']
MapRule = Literal['argmax', 'paint']
SOURCES: tuple[str, ...] = get_args(MapSource)

#: Probability below which a class is absent if maps are weighted by probability.
UNLIKELY = 0.002


def class_maps(
    attention: Tensor,
    patch_logits: Tensor | None,
    source: MapSource = 'fused',
    last_blocks: int | None = None,
) -> Tensor:
    """Return one map per class from attention and patch logits.

    Args:
        attention: Class-to-patch attention of every block (B, L, C, h, w).
        patch_logits: Patch logits (B, C, h, w), or None without a patch head.
        source: 'attention': summed over blocks, scaled to mean 1 per class and image,
            which makes classes comparable; 'patchcam': sigmoid of the patch logits;
            'fused': their product (METHOD, section 4), on the finer of their grids;
            'patches': softmax of the patch logits over the classes.
        last_blocks: Use only the last blocks' attention; None uses all (reference).

    Returns:
        Maps (B, C, h, w), float32, not negative, comparable between classes.

    Raises:
        SettingError: If *source* is unknown, or needs a patch head that is missing.
    """
    if source not in SOURCES:
        raise SettingError(
            f'Unknown source {source!r}, expected one of: {", ".join(SOURCES)}.'
            + did_you_mean(source, SOURCES)
        )
    if source != 'attention' and patch_logits is None:
        raise SettingError(
            f'source={source!r} requires a patch head, which this model does not have. '
            "Use source='attention'."
        )
    if source == 'patches' and patch_logits is not None:
        return patch_logits.float().softmax(dim=1)
    blocks = attention if last_blocks is None else attention[:, -last_blocks:]
    summed = blocks.float().sum(dim=1)
    mean = summed.mean(dim=(-2, -1), keepdim=True)
    scaled = summed / mean.clamp(min=torch.finfo(torch.float32).tiny)
    if source == 'attention' or patch_logits is None:
        return scaled
    cam = patch_logits.float().sigmoid()
    if source == 'patchcam':
        return cam
    return resize(scaled, (cam.shape[-2], cam.shape[-1])) * cam


def present_classes(probs: Tensor, threshold: float = 0.5) -> Tensor:
    """Return which classes are present.

    Args:
        probs: Probability of each class (..., C).
        threshold: A class is present above it; exactly 0.5 is absent (reference).

    Returns:
        Presence (..., C) bool. If no class is above, the most probable one is present.
    """
    present = probs > threshold
    fallback = F.one_hot(probs.argmax(dim=-1), probs.shape[-1]).bool()
    # not torch.where: ONNX Runtime has no kernel of it for booleans
    return present | (fallback & ~present.any(dim=-1, keepdim=True))


def posterior(maps: Tensor, present: Tensor) -> Tensor:
    """Return the share of each present class at every position.

    These shares are comparable between windows, so that a scene blends them and decides
    once per pixel. Deciding per window would leave visible borders.

    Args:
        maps: Maps (B, C, h, w), not negative.
        present: Presence (B, C) bool, at least one class per image.

    Returns:
        Shares (B, C, h, w) that sum to 1 over the classes.
    """
    allowed = present[:, :, None, None]
    tiny = torch.finfo(torch.float32).tiny
    scores = (maps.float() + tiny) * allowed
    return scores / scores.sum(dim=1, keepdim=True)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps (B, C, h, w) to (B, C, H, W), bilinear, half-pixel centers."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size=size, mode='bilinear', align_corners=False)


def dihedral(x: Tensor, number: int, back: bool = False) -> Tensor:
    """Return images (B, C, H, W) in one of the eight orientations of a square.

    Args:
        x: Images or maps; height and width equal for quarter turns.
        number: Orientation, 0 to 7. 0 returns the images unchanged.
        back: Apply the inverse instead.
    """
    turns, flip = number % 4, number >= 4
    if back:
        x = torch.rot90(x, -turns, (-2, -1))
        return x.flip(-1) if flip else x
    return torch.rot90(x.flip(-1) if flip else x, turns, (-2, -1))


def argmax(
    maps: Tensor, probs: Tensor, size: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Return the present class with the largest map at each pixel.

    Args:
        maps: Maps (C, h, w), comparable between classes.
        probs: Probability of each class (C,).
        size: Height and width of the mask in pixels.
        threshold: Presence threshold.

    Returns:
        Mask (H, W), int64.
    """
    present = present_classes(probs, threshold)
    upsampled = resize(maps[None].float(), size)[0]
    return upsampled.masked_fill(~present[:, None, None], -torch.inf).argmax(dim=0)


def paint(
    maps: Tensor, probs: Tensor, size: tuple[int, int], threshold: float = 0.5
) -> Tensor:
    """Return a mask painted class by class, the most probable last.

    A class paints the pixels where its upsampled map is at least that map's mean.
    Unpainted pixels take the class of a nearest painted pixel, by Manhattan distance.
    This is the paper's rule (METHOD, section 4).

    A flat map paints nothing, with one exception: a map of zeros paints everything
    (0 ≥ 0), as in the reference, where only the ReLU produces such maps.

    Args:
        maps: Maps (C, h, w).
        probs: Probability of each class (C,).
        size: Height and width of the mask in pixels.
        threshold: Presence threshold.

    Returns:
        Mask (H, W), int64. If every present class is flat, the most probable class.
    """
    present = present_classes(probs, threshold)
    upsampled = resize(maps[None].float(), size)[0]
    lowest, highest = maps.flatten(1).aminmax(dim=1)
    flat = (lowest == highest) & (highest != 0)
    claims = upsampled >= upsampled.mean(dim=(-2, -1), keepdim=True)
    claims &= (present & ~flat)[:, None, None]
    # ascending rank by probability: the later class overwrites the earlier
    rank = probs.argsort(stable=True).argsort()
    mask = torch.where(claims, rank[:, None, None], -1).argmax(dim=0)
    painted = claims.any(dim=0)
    if not bool(painted.any()):
        best = probs.masked_fill(~present, -torch.inf).argmax()
        return best.expand(size).clone()
    return _fill(mask, painted)


def _fill(mask: Tensor, painted: Tensor) -> Tensor:
    """Return a mask whose unpainted pixels take the class of a nearest painted one."""
    if bool(painted.all()):
        return mask
    from scipy.ndimage import distance_transform_cdt  # for rule 'paint' alone

    _, nearest = distance_transform_cdt(
        ~painted.cpu().numpy(), metric='taxicab', return_indices=True
    )
    rows, cols = torch.from_numpy(nearest.astype(np.int64)).to(mask.device)
    return mask[rows, cols]


#: Rules by name.
RULES = {'argmax': argmax, 'paint': paint}
