"""One scene from windows to products: journal, mosaic, decision, files."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..errors import NodataWarning, PresenceWarning, ResumeWarning
from ..grids import IGNORED
from ..windows import WindowPlan
from .journal import ScoreJournal
from .mosaic import RowMosaic, Rows
from .products import Products

#: Windows that are read back from the journal at a time.
REPLAYED = 16
#: Byte that stands for a share of 1, where shares are stored as bytes.
SHARE = 255


class SceneRun:
    """Takes the windows of one scene, in any number of sittings and processes.

    Every window's scores go into the journal first. A single process blends them as
    they come; windows that the journal holds already, from an interrupted run or from
    other processes, are blended when their turn comes. So the order of every sum,
    and with it every byte, is that of the plan.
    """

    def __init__(
        self,
        plan: WindowPlan,
        journal: ScoreJournal,
        products: Products,
        device: torch.device,
        alone: bool,
    ) -> None:
        """Create the run; the journal is open.

        Args:
            plan: The windows.
            journal: Holds what has been computed.
            products: What is written.
            device: Where scores are blended.
            alone: Blend while windows arrive; otherwise in :meth:`finish`.
        """
        self.plan = plan
        self.journal = journal
        self.products = products
        self.alone = alone
        self._device = device
        self._mosaic = RowMosaic(plan, len(products.class_names))
        self._next = 0
        self._pixels = 0
        #: Windows that were computed in this sitting.
        self.computed = 0
        self.progress: Any = None

    def show_progress(self, title: str) -> None:
        """Show a bar with pixels per second and the time that is left."""
        self.progress = tqdm(
            total=self.plan.height * self.plan.width,
            desc=title,
            unit='px',
            unit_scale=True,
            smoothing=0.05,
            mininterval=0.5,
        )
        self._advance(int((self.journal.finished > 0).sum()))

    def _advance(self, windows: int) -> None:
        """Move the bar by as many windows."""
        if self.progress is not None:
            step = self.progress.total * windows / len(self.plan)
            self.progress.update(min(step, self.progress.total - self.progress.n))

    def take(
        self, numbers: Sequence[int], scores: Tensor, valid: Tensor, nothing: Tensor
    ) -> None:
        """Record a batch of windows of one strip; blend it if alone.

        Args:
            numbers: The windows' numbers, ascending.
            scores: Shares (B, C, h, w), or as bytes of :data:`SHARE`; or decided
                classes (B, H, W) uint8.
            valid: Valid pixels (B, window, window) bool.
            nothing: In which windows no class reached the presence threshold (B,).
        """
        self.journal.write(
            np.asarray(numbers),
            scores.cpu().numpy(),
            valid.cpu().numpy(),
            nothing.cpu().numpy(),
        )
        self.computed += len(numbers)
        self._advance(len(numbers))
        if self.alone:
            self._replay(numbers[0])
            self._blend(numbers, scores, valid)
            self._next = numbers[-1] + 1

    def _replay(self, end: int) -> None:
        """Blend the windows before *end* that the journal holds."""
        held = self._next + np.flatnonzero(self.journal.finished[self._next : end])
        for strip in np.unique(held // len(self.plan.cols)):
            inside = held[held // len(self.plan.cols) == strip]
            for start in range(0, len(inside), REPLAYED):
                numbers = inside[start : start + REPLAYED]
                scores, valid = self.journal.read(numbers)
                self._blend(
                    numbers.tolist(),
                    torch.from_numpy(scores).to(self._device),
                    torch.from_numpy(valid),
                )
        self._next = end

    def _blend(self, numbers: Sequence[int], scores: Tensor, valid: Tensor) -> None:
        """Add windows to the mosaic and write the rows that they finish."""
        if scores.ndim == 3:
            classes = len(self.products.class_names)
            scores = F.one_hot(scores.long(), classes).movedim(-1, 1).float()
        elif scores.dtype == torch.uint8:
            scores = scores.float() / SHARE
        self._write(self._mosaic.add(numbers, scores, valid))

    def _write(self, finished: Iterator[Rows]) -> None:
        """Decide the class of every pixel in finished rows, once, and write them."""
        for rows in finished:
            empty = ~rows.valid
            share, classes = rows.scores.max(dim=0)
            values = {'mask': classes.to(torch.uint8)}
            if 'confidence' in self.products.rasters:
                values['confidence'] = _per_cent(share)
            if 'probabilities' in self.products.rasters:
                values['probabilities'] = _per_cent(rows.scores)
            written: dict[str, NDArray[np.uint8]] = {
                name: value.masked_fill(empty, IGNORED).cpu().numpy()
                for name, value in values.items()
            }
            self._pixels += int(rows.valid.sum())
            self.products.write(rows.row, written)

    def finish(self, scene: Any, thumbnail: Any) -> None:
        """Blend what is left, write every product, and drop the journal.

        Args:
            scene: The :class:`~torchgeo_ctm.datasets.SceneWindows`.
            thumbnail: Its :class:`~torchgeo_ctm.datasets.Thumbnail`, or None.
        """
        self._replay(len(self.plan))
        self._write(self._mosaic.finish())
        if self.progress is not None:
            self._advance(len(self.plan))
            self.progress.close()
        picture = thumbnail.picture if thumbnail is not None else None
        self.products.finish(picture, scene.source.acquired)
        self._warn(scene.scene)
        self.journal.close()
        self.journal.remove()

    def _warn(self, scene: str) -> None:
        """Say what is unusual about the mask."""
        windows = int((self.journal.finished > 0).sum())
        nothing = int((self.journal.finished > 1).sum())
        if not self._pixels:
            warnings.warn(
                f'{scene} has no valid pixel: the mask is empty',
                NodataWarning,
                stacklevel=2,
            )
        elif nothing:
            warnings.warn(
                f'no class reached the presence threshold in {nothing} of {windows} '
                'windows: their most probable class was taken',
                PresenceWarning,
                stacklevel=2,
            )

    def abandon(self, keep: bool) -> None:
        """Stop: keep what has been computed for the next run, or nothing at all."""
        if self.progress is not None:
            self.progress.close()
        self.products.abandon()
        self.journal.close()
        if not keep or not self.journal.finished.any():
            self.journal.remove()


def say_what_was_found(journal: ScoreJournal, reason: str | None) -> None:
    """Warn that an earlier run goes on, or why it cannot."""
    done = int((journal.finished > 0).sum())
    if reason is not None:
        warnings.warn(
            f'{journal.output}: an unfinished run is thrown away, for {reason}',
            ResumeWarning,
            stacklevel=2,
        )
    elif done:
        warnings.warn(
            f'{journal.output}: going on with an unfinished run, {done} of '
            f'{len(journal.finished)} windows are there',
            ResumeWarning,
            stacklevel=2,
        )


def _per_cent(share: Tensor) -> Tensor:
    """Turn shares 0…1 into per cent."""
    return (100 * share.clamp(0, 1)).round().to(torch.uint8)
