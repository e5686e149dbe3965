"""Learn the sound of a tape machine from pairs of recordings, and apply it."""

import os

__version__ = "0.1.0"

# Products of matrices that do not depend on where in memory these lie: a training that goes on ends with the same bits.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
