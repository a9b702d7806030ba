"""The Processing provider, and the plugin that registers it."""

from typing import Any

from processing.core.ProcessingConfig import ProcessingConfig, Setting
from qgis.core import QgsApplication, QgsProcessingProvider

from .algorithms import Assess, MapScene, Sample, TrainFromPolygons
from .command import COMMAND

#: Key of the setting that holds the path of the command.
SETTING = 'TORCHGEO_CTM_COMMAND'
NAME = 'Class-token masking'


class Provider(QgsProcessingProvider):
    """Four algorithms that call the command."""

    def load(self) -> bool:
        """Register the setting, and the algorithms."""
        text = f'Path of the command {COMMAND}; empty: the one on the PATH'
        # as text, because QGIS refuses a file with ~ for the home folder
        ProcessingConfig.addSetting(
            Setting(NAME, SETTING, text, '', valuetype=Setting.STRING)
        )
        ProcessingConfig.readSettings()
        self.refreshAlgorithms()
        return True

    def unload(self) -> None:
        """Remove the setting."""
        ProcessingConfig.removeSetting(SETTING)

    def loadAlgorithms(self) -> None:
        """Add the algorithms."""
        for kind in (MapScene, TrainFromPolygons, Sample, Assess):
            self.addAlgorithm(kind())

    def id(self) -> str:
        """Return the first part of the algorithms' names."""
        return 'torchgeo_ctm'

    def name(self) -> str:
        """Return the name in the toolbox."""
        return NAME


class Plugin:
    """The plugin."""

    def __init__(self) -> None:
        """Create it, without a provider."""
        self.provider: Any = None

    def initProcessing(self) -> None:
        """Register the provider; ``qgis_process`` calls this alone."""
        self.provider = Provider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Register the provider."""
        self.initProcessing()

    def unload(self) -> None:
        """Remove the provider."""
        QgsApplication.processingRegistry().removeProvider(self.provider)
