"""Segmentation networks of the real scene's benchmark: yardsticks and second stage."""

from importlib.util import find_spec
from typing import Final, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.real_scene_data import CLASSES, SIDE
from torchgeo_ctm.grids import IGNORED
from torchgeo_ctm.network.local import LocalHead
from torchgeo_ctm.scaling import SENTINEL2_BANDS as BANDS
from torchgeo_ctm.windows import WindowPlan

HAS_RESNET: Final = find_spec('segmentation_models_pytorch') is not None
#: What the supervised network is called: without the library it is a smaller one.
UNET: Final = 'U-Net' if HAS_RESNET else 'small U-Net'
#: Windows that are mapped at a time.
BATCH: Final = 32


class Training(NamedTuple):
    """How a segmentation network is trained."""

    steps: int = 800
    batch: int = 16
    side: int = SIDE
    lr: float = 1e-3
    jitter: float = 0.03


class SmallUNet(nn.Module):
    """A U-Net from stride 2 to 16, with skips by concatenation."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 128)) -> None:
        """Create the network."""
        super().__init__()
        inputs = (len(BANDS), *widths)
        self.down = nn.ModuleList(
            nn.Sequential(_block(i, o, 2), _block(o, o))
            for i, o in zip(inputs, widths, strict=False)
        )
        pairs = zip(widths[:0:-1], widths[-2::-1], strict=True)
        self.up = nn.ModuleList(_block(i + o, o) for i, o in pairs)
        self.head = nn.Conv2d(widths[0], len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled images (B, bands, H, W) to logits (B, C, H, W)."""
        size = x.shape[-2:]
        features = []
        for down in self.down:
            x = down(x)
            features.append(x)
        for up, skip in zip(self.up, features[-2::-1], strict=True):
            wide = F.interpolate(x, size=skip.shape[-2:], mode='bilinear')
            x = up(torch.cat([wide, skip], dim=1))
        return F.interpolate(self.head(x), size=size, mode='bilinear')


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with batch normalization and GELU."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.GELU())


def build_unet() -> nn.Module:
    """Return the yardstick: a U-Net on ResNet-18, without pre-training."""
    if not HAS_RESNET:
        return SmallUNet()
    import segmentation_models_pytorch as smp

    network: nn.Module = smp.Unet(
        'resnet18', encoder_weights=None, in_channels=len(BANDS), classes=len(CLASSES)
    )
    return network


class LocalNetwork(nn.Module):
    """The local branch of our network alone, with logits at every pixel."""

    def __init__(self, bands: int = len(BANDS)) -> None:
        """Create the network."""
        super().__init__()
        self.local = LocalHead(bands, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Map scaled images (B, bands, H, W) to logits (B, C, H, W)."""
        return F.interpolate(self.local(x), size=x.shape[-2:], mode='bilinear')


def one_hot(classes: NDArray[np.uint8]) -> Tensor:
    """Return a mask (H, W) as shares (C, H, W), 0 for all at ignored pixels."""
    known = torch.from_numpy(classes.astype(np.int64))
    known[known == IGNORED] = len(CLASSES)
    return F.one_hot(known, len(CLASSES) + 1).movedim(-1, 0)[:-1].float()


def turned(x: Tensor, number: int) -> Tensor:
    """Flip and turn (..., H, W) in one of the eight ways of a square."""
    x = torch.rot90(x, number % 4, (-2, -1))
    return x.flip(-1) if number >= 4 else x


def fit_network(
    network: nn.Module,
    image: Tensor,
    shares: Tensor,
    corners: NDArray[np.int64],
    training: Training,
    seed: int,
    device: str,
) -> nn.Module:
    """Train a network by cross-entropy against shares; each pixel weighs its largest.

    Args:
        network: From scaled images to logits.
        image: Scaled bands of the training rows (13, H, W).
        shares: Shares of the classes (C, H, W); 0 for all where nothing is known.
        corners: Upper-left pixels (N, 2) of the windows that are drawn from.
        training: Steps, batch, side of a window, learning rate and jitter.
        seed: Seed of the draws; that of the weights is the caller's.
        device: Device to train on.
    """
    network = network.to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), training.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.lr, training.steps + 1, pct_start=0.1, cycle_momentum=False
    )
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    for _ in range(training.steps):
        drawn = corners[rng.integers(len(corners), size=training.batch)]
        turns = rng.integers(8, size=training.batch)
        x, target = (
            torch.stack(
                [
                    turned(
                        whole[:, r : r + training.side, c : c + training.side], int(k)
                    )
                    for (r, c), k in zip(drawn, turns, strict=True)
                ]
            )
            for whole in (image, shares)
        )
        x, target = jittered(x, training.jitter).to(device), target.to(device)
        logits = network(x.contiguous(memory_format=torch.channels_last))
        weight = target.amax(dim=1)
        losses = -(target * logits.float().log_softmax(dim=1)).sum(dim=1) * weight
        optimizer.zero_grad()
        (losses.sum() / weight.sum().clamp(min=1)).backward()
        optimizer.step()
        schedule.step()
    return network.eval()


def jittered(x: Tensor, size: float) -> Tensor:
    """Vary gain by image and offset by band of scaled images (B, bands, H, W)."""
    gain = 1 + size * torch.randn(len(x), 1, 1, 1)
    return x * gain + size * torch.randn(len(x), x.shape[1], 1, 1)


@torch.inference_mode()
def probabilities(network: nn.Module, image: Tensor, device: str) -> Tensor:
    """Return probabilities (C, H, W), the mean of four mirrorings.

    Windows have the side of the training windows. Given larger ones, some networks
    take open water for land: they have never seen so much of it at once.

    Args:
        network: From scaled images to logits of the same size.
        image: Scaled bands (13, H, W).
        device: Device to compute on.
    """
    height, width = image.shape[-2:]
    plan = WindowPlan(height, width, SIDE, SIDE // 2)
    found = torch.zeros(len(CLASSES), height, width)
    for start in range(0, len(plan), BATCH):
        numbers = range(start, min(start + BATCH, len(plan)))
        at = [plan[number] for number in numbers]
        x = torch.stack(
            [image[:, w.row : w.row + SIDE, w.col : w.col + SIDE] for w in at]
        )
        shares = _mirrored(network, x.to(device)).cpu()
        for number, w, share in zip(numbers, at, shares, strict=True):
            row, col = divmod(number, len(plan.cols))
            tall = torch.from_numpy(plan.rows[row][1])[:, None]
            wide = torch.from_numpy(plan.cols[col][1])
            found[:, w.row : w.row + SIDE, w.col : w.col + SIDE] += share * tall * wide
    return found


def _mirrored(network: nn.Module, x: Tensor) -> Tensor:
    """Return mean probabilities of images and their mirrorings."""
    total: Tensor = torch.zeros(())
    for axes in ((), (-1,), (-2,), (-2, -1)):
        shares = network(x.flip(axes)).float().softmax(dim=1)
        total = total.to(shares) + shares.flip(axes) / 4
    return total
