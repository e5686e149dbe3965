"""Which settings of a machine's knobs to record next: designs, an ensemble's disagreement, and the rounds."""
