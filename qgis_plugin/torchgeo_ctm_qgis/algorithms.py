"""Algorithms of the Processing toolbox: each calls one command of torchgeo-ctm."""

import os
from typing import Any

from processing.core.ProcessingConfig import ProcessingConfig
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterExtent,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
    QgsProcessingParameterVectorLayer,
)

from .command import CommandError, arguments, find_command, run

DEGREES = 'EPSG:4326'


class Algorithm(QgsProcessingAlgorithm):
    """What the algorithms share: they make a call, and stream what it prints."""

    #: Name in scripts and models, name in the toolbox, and help.
    NAME = TITLE = HELP = ''

    def name(self) -> str:
        """Return the name in scripts and models."""
        return self.NAME

    def displayName(self) -> str:
        """Return the name in the toolbox."""
        return self.TITLE

    def shortHelpString(self) -> str:
        """Return the text beside the dialog."""
        return self.HELP

    def createInstance(self) -> 'Algorithm':
        """Return a new algorithm of this kind."""
        return type(self)()

    def add_scene(self) -> None:
        """Add the parameters of a scene: a raster layer, or a folder."""
        self.addParameter(
            QgsProcessingParameterRasterLayer('SCENE', 'Scene', optional=True)
        )
        self.addParameter(
            QgsProcessingParameterFile(
                'FOLDER',
                'or folder of the scene (.SAFE)',
                QgsProcessingParameterFile.Folder,
                optional=True,
            )
        )

    def scene(self, parameters: Any, context: Any) -> str:
        """Return the scene that was chosen.

        Raises:
            QgsProcessingException: If none was.
        """
        layer = self.parameterAsRasterLayer(parameters, 'SCENE', context)
        found = layer.source() if layer else ''
        found = found or self.parameterAsFile(parameters, 'FOLDER', context)
        if not found:
            raise QgsProcessingException(
                'Expected a scene: a raster layer or a folder.'
            )
        return str(found)

    def vector(
        self, name: str, kinds: list[str], parameters: Any, context: Any, feedback: Any
    ) -> tuple[str, str]:
        """Return file and layer name of a vector layer.

        A layer in memory, or with a filter, is written to a file first.

        Args:
            name: Name of the parameter.
            kinds: Suffixes that the command reads.
            parameters: Parameters of the call.
            context: Context of the call.
            feedback: Feedback of the call.

        Raises:
            QgsProcessingException: If it has edits that are in no file yet.
        """
        layer = self.parameterAsVectorLayer(parameters, name, context)
        if layer is not None and layer.isModified():
            raise QgsProcessingException(
                f'{layer.name()} has edits that are not saved. Save them (Layer, Save '
                'Layer Edits), and run again.'
            )
        path, layer_name = self.parameterAsCompatibleSourceLayerPathAndLayerName(
            parameters, name, context, kinds, 'gpkg', feedback
        )
        return str(path), str(layer_name)

    def add_more(self) -> None:
        """Add a parameter for options that the dialog does not show."""
        more = QgsProcessingParameterString(
            'MORE', 'Further options, as on the command line', optional=True
        )
        more.setFlags(more.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        self.addParameter(more)

    def call(self, feedback: Any, *given: str, **options: Any) -> list[str]:
        """Run the command, and return its lines.

        Args:
            feedback: Gets lines and progress, and knows of Cancel.
            *given: Subcommand and positional arguments.
            **options: Its options; ``more`` for those of the user.

        Raises:
            QgsProcessingException: With the command's own line, if it fails.
        """
        try:
            command = find_command(
                ProcessingConfig.getSetting('TORCHGEO_CTM_COMMAND') or ''
            )
            more = options.pop('more', '')
            words = arguments(*given, options=options, more=more)
            feedback.pushCommandInfo(' '.join([command, *words]))
            return run(
                [command, *words],
                feedback.pushInfo,
                feedback.setProgress,
                feedback.isCanceled,
            )
        except CommandError as error:
            raise QgsProcessingException(str(error)) from error


class MapScene(Algorithm):
    """``torchgeo-ctm predict``."""

    NAME, TITLE = 'mapscene', 'Map a scene'
    HELP = (
        'Write the land-cover map of a scene, with polygons, confidence and styles '
        'beside it. The scene is a raster layer with all bands, or a folder: one file '
        'per band, or a .SAFE. The checkpoint comes from "Train from polygons", or from '
        'torchgeo fit. A run that was canceled is resumed.'
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Add the parameters."""
        self.add_scene()
        for parameter in (
            QgsProcessingParameterFile(
                'CHECKPOINT', 'Checkpoint', fileFilter='Checkpoints (*.ckpt)'
            ),
            QgsProcessingParameterExtent('EXTENT', 'Part of the scene', optional=True),
            QgsProcessingParameterNumber(
                'SIEVE',
                'Smallest region of the polygons, in pixels',
                defaultValue=0,
                minValue=0,
            ),
            QgsProcessingParameterBoolean(
                'HECTARES', 'Hectares in the legend', defaultValue=False
            ),
        ):
            self.addParameter(parameter)
        self.add_more()
        self.addParameter(QgsProcessingParameterRasterDestination('OUTPUT', 'Map'))
        self.addOutput(QgsProcessingOutputVectorLayer('POLYGONS', 'Polygons'))

    def processAlgorithm(
        self, parameters: Any, context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Map the scene, and load the polygons, too."""
        scene = self.scene(parameters, context)
        output = self.parameterAsOutputLayer(parameters, 'OUTPUT', context)
        self.call(
            feedback,
            'predict',
            scene,
            checkpoint=self.parameterAsFile(parameters, 'CHECKPOINT', context),
            output=output,
            bbox=self._box(parameters, context),
            sieve=self.parameterAsInt(parameters, 'SIEVE', context),
            hectares=self.parameterAsBool(parameters, 'HECTARES', context),
            overwrite=True,
            more=self.parameterAsString(parameters, 'MORE', context),
        )
        results = {'OUTPUT': output}
        polygons = os.path.splitext(output)[0] + '.gpkg'
        if os.path.exists(polygons):
            results['POLYGONS'] = polygons
            details = QgsProcessingContext.LayerDetails(
                'Polygons', context.project(), 'POLYGONS'
            )
            context.addLayerToLoadOnCompletion(polygons, details)
        return results

    def _box(self, parameters: Any, context: Any) -> str:
        """Return the extent in degrees, as the command expects it."""
        if not parameters.get('EXTENT'):
            return ''
        degrees = QgsCoordinateReferenceSystem(DEGREES)
        box = self.parameterAsExtent(parameters, 'EXTENT', context, degrees)
        corners = (box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum())
        return '' if box.isNull() else ','.join(f'{value:.7f}' for value in corners)


class TrainFromPolygons(Algorithm):
    """``torchgeo-ctm train``."""

    NAME, TITLE = 'trainfrompolygons', 'Train from polygons'
    HELP = (
        'Train a network on polygons or points with a class, drawn on a scene. Ten '
        'polygons make a first map, in a minute or two. Draw some of every class: what '
        'nobody drew is not learned. Then take the checkpoint to "Map a scene".'
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Add the parameters."""
        self.add_scene()
        for parameter in (
            QgsProcessingParameterVectorLayer(
                'LABELS',
                'Polygons or points',
                [QgsProcessing.TypeVectorPolygon, QgsProcessing.TypeVectorPoint],
            ),
            QgsProcessingParameterField(
                'FIELD',
                'Field with the class (default: class)',
                parentLayerParameterName='LABELS',
                optional=True,
            ),
            QgsProcessingParameterNumber(
                'STEPS', 'Training steps', defaultValue=400, minValue=1
            ),
        ):
            self.addParameter(parameter)
        self.add_more()
        self.addParameter(
            QgsProcessingParameterFileDestination(
                'OUTPUT', 'Checkpoint', 'Checkpoints (*.ckpt)'
            )
        )

    def processAlgorithm(
        self, parameters: Any, context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Train."""
        scene = self.scene(parameters, context)
        kinds = ['gpkg', 'shp', 'geojson']
        labels, name = self.vector('LABELS', kinds, parameters, context, feedback)
        output = self.parameterAsFileOutput(parameters, 'OUTPUT', context)
        self.call(
            feedback,
            'train',
            scene,
            labels=labels,
            layer=name if labels.endswith('.gpkg') else '',
            field=self.parameterAsString(parameters, 'FIELD', context),
            steps=self.parameterAsInt(parameters, 'STEPS', context),
            output=output,
            overwrite=True,
            more=self.parameterAsString(parameters, 'MORE', context),
        )
        return {'OUTPUT': output}


class Sample(Algorithm):
    """``torchgeo-ctm sample``."""

    NAME, TITLE = 'sample', 'Draw a sample of a map'
    HELP = (
        'Draw points of a map at random, some in every class. Fill the field '
        '"reference" of each with what you see there, from a drop-down list; the class '
        'of the map is not shown. Then "Assess a map".'
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Add the parameters."""
        for parameter in (
            QgsProcessingParameterRasterLayer('MAP', 'Map'),
            QgsProcessingParameterNumber(
                'SIZE', 'Number of points', defaultValue=300, minValue=1
            ),
            QgsProcessingParameterNumber(
                'SEED', 'Seed of the draw', defaultValue=0, minValue=0
            ),
        ):
            self.addParameter(parameter)
        self.add_more()
        self.addParameter(
            QgsProcessingParameterVectorDestination(
                'OUTPUT', 'Points', QgsProcessing.TypeVectorPoint
            )
        )

    def processAlgorithm(
        self, parameters: Any, context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Draw the points."""
        output = self.parameterAsOutputLayer(parameters, 'OUTPUT', context)
        self.call(
            feedback,
            'sample',
            self.parameterAsRasterLayer(parameters, 'MAP', context).source(),
            size=self.parameterAsInt(parameters, 'SIZE', context),
            seed=str(self.parameterAsInt(parameters, 'SEED', context)),
            output=output,
            # a file that exists may hold labels that somebody has made
            more=self.parameterAsString(parameters, 'MORE', context),
        )
        return {'OUTPUT': output}


class Assess(Algorithm):
    """``torchgeo-ctm assess``."""

    NAME, TITLE = 'assess', 'Assess a map'
    HELP = (
        'Estimate accuracy and area of each class of a map from the points of "Draw a '
        'sample of a map", with 95 % intervals, and write them as a page.'
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Add the parameters."""
        for parameter in (
            QgsProcessingParameterRasterLayer('MAP', 'Map that was sampled'),
            QgsProcessingParameterVectorLayer(
                'SAMPLES', 'Labeled points', [QgsProcessing.TypeVectorPoint]
            ),
            QgsProcessingParameterField(
                'COLUMN',
                'Field with the true class (default: reference)',
                parentLayerParameterName='SAMPLES',
                optional=True,
            ),
        ):
            self.addParameter(parameter)
        self.add_more()
        self.addParameter(
            QgsProcessingParameterFileDestination(
                'OUTPUT', 'Report', 'HTML files (*.html)'
            )
        )

    def processAlgorithm(
        self, parameters: Any, context: Any, feedback: Any
    ) -> dict[str, Any]:
        """Assess the map; its tables are in the log, too."""
        kinds = ['gpkg', 'geojson']
        samples, _ = self.vector('SAMPLES', kinds, parameters, context, feedback)
        output = self.parameterAsFileOutput(parameters, 'OUTPUT', context)
        self.call(
            feedback,
            'assess',
            self.parameterAsRasterLayer(parameters, 'MAP', context).source(),
            samples,
            column=self.parameterAsString(parameters, 'COLUMN', context),
            report=output,
            overwrite=True,
            more=self.parameterAsString(parameters, 'MORE', context),
        )
        return {'OUTPUT': output}
