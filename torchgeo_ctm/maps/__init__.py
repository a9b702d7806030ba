"""Tensors only: from class scores to class maps and masks."""
