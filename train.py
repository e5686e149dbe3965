"""Trains a model: ``python train.py model=tcn``. The same as ``revox train``."""

from revox_lightning.commands.train import main

if __name__ == "__main__":
    main()
