"""From tensors to masks, and from masks to files."""
