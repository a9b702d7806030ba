"""Reports of the commands ``describe`` and ``stats``."""
