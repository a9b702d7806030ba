"""The example of Olofsson et al. (2014), Table 8, with pixels of 30 m."""

import numpy as np

#: Classes of the map.
NAMES = ['deforestation', 'forest gain', 'stable forest', 'stable non-forest']
#: Samples by class of the map (rows) and of the reference (columns).
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
#: Pixels of each class of the map.
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
