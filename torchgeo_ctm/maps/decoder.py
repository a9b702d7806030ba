"""From class maps and probabilities to scores and masks, as the options say."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import SettingError
from ..options import options_from
from .class_maps import (
    RULES,
    UNLIKELY,
    MapRule,
    MapSource,
    dihedral,
    posterior,
    present_classes,
)
from .refine import (
    REFINEMENTS,
    Refinement,
    RefinementOptions,
    check_refinement,
    geometric_blend,
    refinement_tag,
)


@dataclass(frozen=True)
class MapOptions:
    """How class maps are made, and decided into masks.

    Attributes:
        source: 'patches', the softmax of the patch logits; 'attention'; 'patchcam', the
            sigmoid of the patch logits; or 'fused', attention times 'patchcam'.
        rule: 'argmax', or the paper's 'paint'.
        labels: Which classes ``predict`` takes as present: 'predicted' by the model, or
            'true' by the batch's label or mask.
        threshold: A class is present if its probability is above it, 0 to 1.
        presence: 'all' lets every class into a mask, whatever its probability, but
            those that a true label excludes: for the source 'patches', whose softmax
            already decides. 'threshold' lets only present classes in (paper).
            'probability' lets every class of at least 0.2 % in and multiplies its map
            by its probability. Rule 'paint' requires 'threshold'.
        refinement: 'soft_assignment' moves the scores from patches to pixels by the
            bands of each image. It requires rule 'argmax'. See
            :func:`~torchgeo_ctm.maps.refine.soft_assignment`. Null: none.
        refinement_options: Its ``rounds``, ``likelihood``, ``neighbours`` and
            ``trust``, where they differ from the defaults.
        refinement_weight: Weight of the refinement, 0 to 1, in a geometric mean with
            the scores that it refines. 1 takes the refinement alone.
        ensemble: 'dihedral' averages ``predict`` over the eight flips and quarter turns
            of each window, at eight times the cost. Windows must be square.
        calibration: Shift of the logits before they become probabilities, because
            masking raises the learned odds by 1 / (1 - rate): 'odds' shifts by
            log(1 - rate); 'validation' shifts each class to its best F1 at *threshold*
            on the validation split. The checkpoint holds the shift.
    """

    source: MapSource = 'patches'
    rule: MapRule = 'argmax'
    labels: Literal['predicted', 'true'] = 'predicted'
    threshold: float = 0.5
    presence: Literal['threshold', 'probability', 'all'] = 'all'
    refinement: Refinement | None = 'soft_assignment'
    refinement_options: RefinementOptions | None = None
    refinement_weight: float = 0.5
    ensemble: Literal['dihedral'] | None = None
    calibration: Literal['odds', 'validation'] | None = None


def check_map_options(options: MapOptions) -> None:
    """Check that options are in range and go together.

    Raises:
        SettingError: If they do not.
    """
    if not 0 < options.threshold < 1:
        raise SettingError(
            f'maps.threshold must be above 0 and below 1, got {options.threshold}.'
        )
    if options.presence != 'threshold' and options.rule == 'paint':
        raise SettingError(
            f"maps.presence={options.presence!r} requires maps.rule='argmax', got 'paint'. "
            "Use maps.presence='threshold'."
        )
    check_refinement(options.refinement, options.refinement_options)
    if not 0 < options.refinement_weight <= 1:
        raise SettingError(
            'maps.refinement_weight must be above 0 and at most 1, got '
            f'{options.refinement_weight}.'
        )
    if options.refinement is not None and options.rule != 'argmax':
        raise SettingError(
            f"maps.refinement={options.refinement!r} requires maps.rule='argmax', got "
            f'{options.rule!r}.'
        )


class MapDecoder:
    """Decides scores and masks from class maps and class probabilities.

    Both predictors own one. It holds no weights, and its options do not change:
    :meth:`with_options` returns another decoder.
    """

    def __init__(self, options: MapOptions) -> None:
        """Create a decoder.

        Args:
            options: The options. A threshold of 0 lets in every class that is not
                impossible.

        Raises:
            SettingError: If one is unknown or out of range, or they do not go together.
        """
        options = options_from(MapOptions, options, 'maps')
        default = MapOptions.threshold
        check_map_options(
            options if options.threshold else replace(options, threshold=default)
        )
        self.options = options

    def with_options(self, **changes: Any) -> 'MapDecoder':
        """Return a decoder with other options.

        Args:
            **changes: Options of :class:`MapOptions`.

        Raises:
            SettingError: If an option is unknown or not one of its choices.
        """
        known = {key: getattr(self.options, key) for key in MapOptions.__annotations__}
        return MapDecoder(options_from(MapOptions, known | changes, 'maps'))

    @property
    def refines(self) -> bool:
        """Whether scores are refined from patches to pixels."""
        return self.options.refinement is not None and self.options.rule == 'argmax'

    def tags(self) -> dict[str, str]:
        """Return the options that products name in their tags."""
        options = self.options
        return {
            'MAP_SOURCE': options.source,
            'MAP_RULE': options.rule,
            'MAP_LABELS': options.labels,
            'REFINEMENT': self._refinement_tag(),
            'ENSEMBLE': str(options.ensemble),
            'PRESENCE': options.presence,
            'PRESENCE_THRESHOLD': str(options.threshold),
        }

    def _refinement_tag(self) -> str:
        """Return the refinement and its options as text."""
        options = self.options
        tag = refinement_tag(options.refinement, options.refinement_options)
        if options.refinement is None or options.refinement_weight == 1:
            return tag
        return f'{tag} weight={options.refinement_weight:g}'

    def average(
        self, image: Tensor, predict: Callable[[Tensor], Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Return predictions of images, averaged over the ensemble if there is one.

        Args:
            image: Images (B, bands, H, W).
            predict: Returns tensors of images. Those of four dimensions,
                (B, C, h, w), are turned back before averaging.
        """
        if self.options.ensemble is None:
            return dict(predict(image))
        turned = [
            {
                key: dihedral(value, number, back=True) if value.ndim == 4 else value
                for key, value in predict(dihedral(image, number)).items()
            }
            for number in range(8)
        ]
        return {
            key: torch.stack([values[key] for values in turned]).mean(dim=0)
            for key in turned[0]
        }

    def scores(self, maps: Tensor, probs: Tensor, size: tuple[int, int]) -> Tensor:
        """Return scores of each class, before any refinement.

        Args:
            maps: Class maps (B, C, h, w).
            probs: Class probabilities, or true labels, (B, C).
            size: Height and width of the images in pixels.

        Returns:
            The share of each present class at every position, (B, C, h, w) on the grid
            of *maps*; for rule 'paint' one-hot (B, C, H, W). Comparable between windows.
        """
        if self.options.rule != 'paint':
            return self.shares(maps, probs)
        masks = self.masks(maps, probs, size)
        return F.one_hot(masks, maps.shape[1]).movedim(-1, 1).float()

    def shares(self, maps: Tensor, probs: Tensor) -> Tensor:
        """Return the share of each present class at every position, (B, C, h, w)."""
        maps, threshold = self._weighted(maps, probs)
        return posterior(maps, present_classes(probs, threshold))

    def masks(
        self,
        maps: Tensor,
        probs: Tensor,
        size: tuple[int, int],
        image: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Return the class of every pixel.

        Args:
            maps: Class maps (B, C, h, w).
            probs: Class probabilities, or true labels, (B, C).
            size: Height and width in pixels.
            image: Scaled images (B, bands, H, W). Without them nothing is refined.
            valid: Valid pixels (B, H, W) bool; None: all.

        Returns:
            Masks (B, H, W), int64.
        """
        if image is not None and self.refines:
            return self.refined(self.shares(maps, probs), image, valid).argmax(dim=1)
        rule = RULES[self.options.rule]
        maps, threshold = self._weighted(maps, probs)
        return torch.stack(
            [
                rule(map_, prob, size, threshold)
                for map_, prob in zip(maps, probs, strict=True)
            ]
        )

    def refined(
        self, scores: Tensor, image: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Return scores (B, C, h, w) refined to pixels (B, C, H, W).

        Args:
            scores: Shares of the present classes.
            image: Scaled images (B, bands, H, W).
            valid: Valid pixels (B, H, W) bool; None: all.
        """
        if self.options.refinement is None:
            return scores
        refine = REFINEMENTS[self.options.refinement]
        given = self.options.refinement_options or {}
        # half precision has too few digits for moments of pixels
        with torch.autocast(scores.device.type, enabled=False):
            finer = refine(scores, image.float(), valid, **given)
            weight = self.options.refinement_weight
            return finer if weight == 1 else geometric_blend(scores, finer, weight)

    @property
    def threshold(self) -> float:
        """Probability above which a class is present."""
        if self.options.presence == 'all':
            # true labels are 0 where a class is absent, and probabilities are above 0
            return 0.0 if self.options.labels == 'true' else -1.0
        if self.options.presence == 'probability':
            return min(UNLIKELY, self.options.threshold)
        return self.options.threshold

    def _weighted(self, maps: Tensor, probs: Tensor) -> tuple[Tensor, float]:
        """Return maps (B, C, h, w) weighted by presence, and the presence threshold."""
        if self.options.presence == 'probability':
            maps = maps * probs[:, :, None, None]
        return maps, self.threshold
