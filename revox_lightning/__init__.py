"""Learn the sound of a tape machine from pairs of recordings, and apply it."""

__version__ = "0.1.0"
