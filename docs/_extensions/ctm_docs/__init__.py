"""A Sphinx extension: reference pages from the code, formulas without a network."""

import inspect
from typing import TYPE_CHECKING, Any

from .files import replace_folder

if TYPE_CHECKING:
    from pathlib import Path

    from sphinx.application import Sphinx

__all__ = ['setup', 'write_pages']


def write_pages(docs: 'Path') -> None:
    """Write the pages that come from the code and from notebooks, where they changed.

    Args:
        docs: Folder of the documentation's sources.
    """
    # torch and TorchGeo take seconds to import, and only this needs them
    from .command_pages import command_pages
    from .measured import measured_pages
    from .weights import weights_pages
    from .yaml_pages import yaml_pages

    replace_folder(docs / 'reference' / 'commands', command_pages())
    replace_folder(docs / 'reference' / 'yaml', yaml_pages())
    replace_folder(docs / 'explanation' / 'measured', measured_pages(docs.parent))
    replace_folder(docs / 'reference' / 'weights', weights_pages())
    notebooks = (docs.parent / 'notebooks').glob('*.ipynb')
    pages = {path.name: path.read_text(encoding='utf-8') for path in notebooks}
    replace_folder(docs / 'notebooks', pages)


def setup(app: 'Sphinx') -> dict[str, Any]:
    """Register the object type of YAML keys, the formulas, and the writing."""
    from .keys import KEY, parse_key
    from .mathml import display, inline

    app.add_object_type(KEY, KEY, 'pair: %s; YAML key', parse_key)
    app.add_html_math_renderer('mathml', (inline, None), (display, None))
    app.setup_extension('sphinx.ext.autodoc')
    app.connect('autodoc-skip-member', _skip_constant)
    app.connect('builder-inited', lambda app: write_pages(app.srcdir))
    return {'version': '1', 'parallel_read_safe': True, 'parallel_write_safe': True}


def _skip_constant(
    app: 'Sphinx', what: str, name: str, thing: Any, skip: bool, options: Any
) -> bool | None:
    """Leave a module's constants out of the reference."""
    constant = not (inspect.isclass(thing) or inspect.isroutine(thing))
    return True if what == 'module' and constant else None
