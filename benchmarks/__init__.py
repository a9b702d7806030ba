"""Figures and comparisons that the README and docstrings quote."""
