"""Names of the products of a map, which lie beside its class raster."""

from pathlib import Path

from .options import ProductOptions


def product_path(mask: Path, product: str, suffix: str | None = None) -> Path:
    """Return the path of a product beside the mask: ``OUT.tif`` → ``OUT_x.tif``."""
    suffix = mask.suffix if suffix is None else suffix
    name = f'{mask.stem}_{product}{suffix}' if product else f'{mask.stem}{suffix}'
    return mask.with_name(name)


def all_paths(output: Path) -> dict[str, Path]:
    """Return the paths of all products that a map may have, the mask first."""
    return {
        'mask': output,
        'confidence': product_path(output, 'confidence'),
        'probabilities': product_path(output, 'probabilities'),
        'polygons': product_path(output, '', '.gpkg'),
        'style': product_path(output, '', '.qml'),
        'confidence_style': product_path(output, 'confidence', '.qml'),
        'probabilities_style': product_path(output, 'probabilities', '.qml'),
        'picture': product_path(output, '', '.png'),
        'stac': product_path(output, '', '.json'),
    }


def product_paths(output: Path, options: ProductOptions) -> dict[str, Path]:
    """Return the paths of the products to write, the mask first."""
    # a style of a raster is written if both are
    wanted = {
        'mask': True,
        'confidence': options.confidence,
        'probabilities': options.probabilities,
        'polygons': options.polygons,
        'style': options.style,
        'confidence_style': options.confidence and options.style,
        'probabilities_style': options.probabilities and options.style,
        'picture': options.picture,
        'stac': options.stac,
    }
    return {name: path for name, path in all_paths(output).items() if wanted[name]}
