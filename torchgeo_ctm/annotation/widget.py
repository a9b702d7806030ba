"""The grid of windows that a notebook shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import geopandas as gpd
import traitlets

from ..errors import CTMError, LabelError
from ..labels.source import class_indices
from .answers import Answer, Answers


class WindowGrid(anywidget.AnyWidget):
    """A grid of windows with a button for each class.

    The widget sends ``answers`` at every click, and the file is written.
    """

    _esm = Path(__file__).with_name('widget.js')
    _css = Path(__file__).with_name('widget.css')

    classes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colors = traitlets.List(traitlets.Unicode()).tag(sync=True)
    pictures: traitlets.List[Any] = traitlets.List().tag(sync=True)
    #: For each window: indices of classes, "only these", "not sure".
    answers: traitlets.List[Any] = traitlets.List().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, saved: Answers, pictures: list[list[bytes]], colors: Sequence[str]
    ) -> None:
        """Initialize the grid.

        Args:
            saved: The windows and what is known about them.
            pictures: PNGs of each window, of one composite or more.
            colors: Color of each class.
        """
        self._saved = saved
        #: Why the last answer was not written.
        self._failure: CTMError | None = None
        super().__init__(
            classes=list(saved.names),
            colors=list(colors),
            pictures=pictures,
            answers=[
                [list(a.classes), a.only_these, a.not_sure] for a in saved.answers
            ],
            message=self._state(),
        )
        self.observe(self._save, 'answers')

    def __repr__(self) -> str:
        """Return what a notebook shows where widgets are not supported."""
        return f'WindowGrid: {self.message}'

    def answer(
        self,
        window: int,
        classes: Sequence[str] = (),
        *,
        only_these: bool = False,
        not_sure: bool = False,
    ) -> None:
        """Answer from Python what a person would click.

        Args:
            window: Number of the window, from 0.
            classes: Names of the classes in it.
            only_these: No other class is in it.
            not_sure: Nobody can tell.

        Raises:
            LabelError: If window or class is unknown.
            OutputError: If the file cannot be written.
        """
        if not 0 <= window < len(self._saved):
            raise LabelError(
                f'Unknown window {window}, expected 0 to {len(self._saved) - 1}.'
            )
        indices = class_indices(classes, self._saved.names, f'window {window}')
        answers: list[Any] = list(self.answers)
        answers[window] = [sorted(indices), only_these, not_sure]
        self.answers = answers
        if self._failure is not None:
            raise self._failure

    @property
    def path(self) -> Path:
        """GeoPackage with the labels."""
        return self._saved.path

    @property
    def windows(self) -> gpd.GeoDataFrame:
        """The windows and their labels, as in the file."""
        return self._saved.frame()

    def _save(self, change: Any) -> None:
        """Write what was clicked, and say so below the grid."""
        self._saved.answers = [
            Answer(tuple(classes), only, unsure) for classes, only, unsure in change.new
        ]
        self._failure = None
        try:
            self._saved.save()
        except CTMError as error:
            # an exception in here would go to a log that nobody sees
            self._failure = error
            self.message = f'Not saved: {error}'
        else:
            self.message = self._state()

    def _state(self) -> str:
        """Return how many windows are labeled, and where."""
        done = sum(answer.given for answer in self._saved.answers)
        return f'{done} of {len(self._saved)} windows labeled in {self._saved.path}'
