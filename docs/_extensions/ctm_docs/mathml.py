"""Formulas as MathML, which browsers draw themselves: no script, no network."""

from html import escape
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.logging import getLogger

logger = getLogger(__name__)


def inline(translator: Any, node: nodes.math) -> None:
    """Write a formula in a line of text."""
    translator.body.append(_formula(node, as_block=False))
    raise nodes.SkipNode


def display(translator: Any, node: nodes.math_block) -> None:
    """Write a formula in lines of its own."""
    translator.body.append(f'<div class="math">{_formula(node, as_block=True)}</div>')
    raise nodes.SkipNode


def _formula(node: nodes.Element, as_block: bool) -> str:
    """Return a formula as MathML; warn, and return its text, if that cannot be."""
    try:
        formula: str = tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        logger.warning('formula cannot be drawn: %s', error, location=node)
        return escape(node.astext())
    return formula
