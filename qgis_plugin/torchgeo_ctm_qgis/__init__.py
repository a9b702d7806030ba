"""QGIS plugin: a Processing provider that calls the command torchgeo-ctm."""

from typing import Any


def classFactory(iface: Any) -> Any:
    """Return the plugin.

    Args:
        iface: QGIS's interface; None in ``qgis_process``.
    """
    from .provider import Plugin

    return Plugin()
