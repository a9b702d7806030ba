"""The table of weights that training can start from, with the TorchGeo that is installed."""

from torchgeo_ctm.reports.weights import markdown


def weights_pages() -> dict[str, str]:
    """Return the table by file name, to include in a page."""
    return {'weights.inc': '\n'.join([*markdown(), ''])}
