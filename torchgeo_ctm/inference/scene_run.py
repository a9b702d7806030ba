"""One scene from window scores to products: journal, blending, decision, files."""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ..errors import (
    NodataWarning,
    PresenceWarning,
    ResumeNote,
    ResumeWarning,
    UniformMapNote,
)
from ..files import uninterrupted
from ..grids import IGNORED, Window
from ..scenes.area import Area
from ..scenes.batches import Thumbnail
from ..scenes.scene import SceneWindows
from ..windows import WindowPlan
from .journal import ScoreJournal
from .merging import Merging
from .mosaic import RowMosaic, Rows
from .products import Products

#: Windows read back from the journal at a time.
REPLAYED = 16
#: Note of an interruption that came when every file was written.
COMPLETE = 'complete'
#: Share of a map from which one class is reported as nearly all of it.
UNIFORM = 0.99
#: Pixels below which a map of one class is nothing unusual.
ENOUGH = 100_000
#: Byte that stands for a score of 1, where scores are stored as bytes.
FULL = 255


class SceneRun:
    """The run of one scene, over any number of interruptions and processes.

    Scores of every window go into the journal first. A single process blends them as
    they come. Windows that the journal holds already, from an interrupted run or from
    other processes, are blended when their turn comes. So the order of every sum, and
    with it every byte, is that of the plan.
    """

    def __init__(
        self,
        plan: WindowPlan,
        journal: ScoreJournal,
        products: Products,
        merging: Merging,
        device: torch.device,
        alone: bool,
        area: Area | None = None,
    ) -> None:
        """Create the run.

        Args:
            plan: Windows of the scene.
            journal: Journal of the scene, started.
            products: Products to write.
            merging: Classes of the map, made from those of the scores.
            device: Device that blends scores.
            alone: Blend while windows arrive; otherwise in :meth:`finish`.
            area: The part of the scene that is mapped; None: all of it.
        """
        self.plan = plan
        self.journal = journal
        self.products = products
        self.merging = merging
        self.alone = alone
        self._device = device
        whole = Window(0, 0, plan.height, plan.width)
        self._area = Area('scene', whole) if area is None else area
        self._wanted = self._area.touches(plan)
        top, height = self._area.window.row, self._area.window.height
        self._mosaic = RowMosaic(plan, merging.count, range(top, top + height))
        self._next = 0
        self._pixels = np.zeros(IGNORED, np.int64)
        #: Whether a warning has said already that the scene looks unusual.
        self.doubted = False
        self._progress: tqdm[None] | None = None

    def show_progress(self, title: str) -> None:
        """Show a progress bar with pixels per second, unless there is one already."""
        if self._progress is not None:
            return
        total = self._area.window.height * self._area.window.width
        done = float((self.journal.finished > 0)[self._wanted].mean())
        self._progress = tqdm(
            total=total,
            # a resumed run starts where it stopped, and its speed is its own
            initial=round(total * done),
            desc=title,
            unit='px',
            unit_scale=True,
            smoothing=0.05,
            mininterval=0.5,
        )

    def _advance(self, windows: int) -> None:
        """Advance the progress bar by some windows."""
        if self._progress is not None and self._progress.total is not None:
            step = self._progress.total * windows / self._wanted.sum()
            self._progress.update(min(step, self._progress.total - self._progress.n))

    def take(
        self, numbers: Sequence[int], scores: Tensor, valid: Tensor, nothing: Tensor
    ) -> None:
        """Record a batch of windows of one row; blend it if there is one process.

        Args:
            numbers: Numbers of the windows, ascending.
            scores: Scores 0…1 (B, C, h, w), or bytes 0…:data:`FULL`; or decided
                classes (B, H, W) uint8.
            valid: Valid pixels (B, window, window) bool.
            nothing: Windows in which no class reached the presence threshold (B,).
        """
        self.journal.write(
            np.asarray(numbers),
            scores.cpu().numpy(),
            valid.cpu().numpy(),
            nothing.cpu().numpy(),
        )
        self._advance(len(numbers))
        if self.alone:
            self._replay(numbers[0])
            self._blend(numbers, scores, valid)
            self._next = numbers[-1] + 1

    def _replay(self, end: int) -> None:
        """Blend the windows before *end* that the journal holds."""
        held = self._next + np.flatnonzero(self.journal.finished[self._next : end])
        for row in np.unique(held // len(self.plan.cols)):
            inside = held[held // len(self.plan.cols) == row]
            for start in range(0, len(inside), REPLAYED):
                numbers = inside[start : start + REPLAYED]
                scores, valid = self.journal.read(numbers, self.plan.window)
                self._blend(
                    numbers.tolist(),
                    torch.from_numpy(scores).to(self._device),
                    torch.from_numpy(valid),
                )
        self._next = end

    def _blend(self, numbers: Sequence[int], scores: Tensor, valid: Tensor) -> None:
        """Blend windows and write the rows that they finish."""
        if scores.ndim == 3:
            scores = F.one_hot(scores.long(), self.merging.count).movedim(-1, 1).float()
        elif scores.dtype == torch.uint8:
            scores = scores.float() / FULL
        self._write(self._mosaic.add(numbers, scores, valid))

    def _write(self, finished: Iterator[Rows]) -> None:
        """Decide the class of every pixel in finished rows, once, and write them."""
        for rows in map(self._inside, finished):
            scores = self.merging.scores(rows.scores)
            highest, classes = scores.max(dim=0)
            values = {'mask': classes.to(torch.uint8)}
            if 'confidence' in self.products.rasters:
                values['confidence'] = _percent(highest)
            if 'probabilities' in self.products.rasters:
                values['probabilities'] = _percent(scores)
            written: dict[str, NDArray[np.uint8]] = {
                name: value.masked_fill(~rows.valid, IGNORED).cpu().numpy()
                for name, value in values.items()
            }
            counts = np.bincount(written['mask'].ravel(), minlength=IGNORED + 1)
            self._pixels += counts[:IGNORED]
            self.products.write(rows.row, written)

    def _inside(self, rows: Rows) -> Rows:
        """Return the part of finished rows that is mapped, counted from its corner."""
        row, col, height, width = self._area.window
        first = max(rows.row, row)
        last = min(rows.row + rows.valid.shape[0], row + height)
        place = np.s_[..., first - rows.row : last - rows.row, col : col + width]
        inside = torch.from_numpy(self._area.inside(first - row, last - first))
        valid = rows.valid[place] & inside.to(rows.valid.device)
        return Rows(first - row, rows.scores[place], valid)

    def finish(
        self, scene: SceneWindows, thumbnail: Thumbnail | None, overwrite: bool
    ) -> None:
        """Blend the remaining windows, write every product, delete the journal.

        Args:
            scene: The scene.
            thumbnail: Thumbnail of the scene for the quick look; None: no quick look.
            overwrite: Replace existing products.
        """
        self._replay(len(self.plan))
        self._write(self._mosaic.finish())
        if self._progress is not None:
            self._advance(len(self.plan))
            self._progress.close()
        picture = thumbnail.picture if thumbnail is not None else None
        self.products.finish(picture, scene.source.acquired)
        self._warn(scene.scene)
        published = False
        try:
            with uninterrupted():
                self.products.publish(overwrite)
                self.journal.remove()
                self.journal.close()
                published = True
        except BaseException as stop:
            if published:
                # what was interrupted after its last file has nothing to resume
                stop.add_note(COMPLETE)
            raise

    def _warn(self, scene: str) -> None:
        """Warn about an empty mask, and about windows below the threshold."""
        windows = int((self.journal.finished > 0).sum())
        nothing = int((self.journal.finished > 1).sum())
        total, most = int(self._pixels.sum()), int(self._pixels.argmax())
        share = self._pixels[most] / max(total, 1)
        several = len(self.products.class_names) > 1
        if share >= UNIFORM and total >= ENOUGH and several and not self.doubted:
            warnings.warn(
                f'{scene}: {share:.1%} of the map is {self.products.class_names[most]!r}. '
                'If the scene shows more than that, its bands or their values are not '
                'what the model expects.',
                UniformMapNote,
                stacklevel=2,
            )
        if not total:
            warnings.warn(
                f'{scene} has no valid pixel: the mask is empty.',
                NodataWarning,
                stacklevel=2,
            )
        elif nothing:
            warnings.warn(
                f'No class reached the presence threshold in {nothing} of {windows} '
                'windows: their most probable class was taken.',
                PresenceWarning,
                stacklevel=2,
            )

    def stop_incomplete(self, missing: int) -> None:
        """Stop without products, because windows were never computed.

        Args:
            missing: Number of windows with data that were not computed.
        """
        warnings.warn(
            f'{self.journal.output}: {missing} of {len(self.plan)} windows were not '
            'computed, no product is written. Run it again without a limit to resume.',
            ResumeWarning,
            stacklevel=2,
        )
        self.abandon(keep=True)

    def abandon(self, keep: bool) -> None:
        """Stop without products.

        Args:
            keep: Keep the journal for the next run, if a window is complete.
        """
        if self._progress is not None:
            self._progress.close()
        self.products.abandon()
        self.journal.close()
        if not keep or not self.journal.finished.any():
            self.journal.remove()


def warn_about_resume(journal: ScoreJournal, reason: str | None) -> None:
    """Warn that an interrupted run is resumed, or why it cannot be.

    Args:
        journal: Journal of the scene, started.
        reason: Why the records of an earlier run were deleted, if they were.
    """
    done = int((journal.finished > 0).sum())
    kind: type[ResumeWarning] = ResumeWarning
    if reason is not None:
        text = f'an interrupted run cannot be resumed, because {reason}; starting over.'
    elif done:
        kind = ResumeNote
        text = (
            f'resuming an interrupted run at {done} of {len(journal.finished)} windows.'
        )
    else:
        return
    warnings.warn(f'{journal.output}: {text}', kind, stacklevel=2)


def _percent(scores: Tensor) -> Tensor:
    """Convert scores 0…1 to percent, uint8."""
    return (100 * scores.clamp(0, 1)).round().to(torch.uint8)
