"""Label windows of a scene by click, in a notebook."""

from .click import label_windows

__all__ = ['label_windows']
