"""Published data sets as their authors' folders lie: nothing is renamed, nothing is copied."""

from __future__ import annotations

import re
from pathlib import Path

from revox_lightning.data.index import Index
from revox_lightning.data.recordings import SUFFIXES, pair
from revox_lightning.data.takes import SPLITS, Take
from revox_lightning.errors import UserError


class DeviceFolder:
    """One device of the folder ``Data`` of Automated-GuitarAmpModelling (Wright et al., 2019 and 2020).

    ``root/{train,val,test}/DEVICE-input.wav`` and ``DEVICE-target.wav``. Raises UserError where one is not there.
    """

    knobs: tuple[str, ...] = ()

    def __init__(self, root: str | None, device: str | None, zero_vu_dbfs: float | None = None) -> None:
        if root is None or device is None:
            raise UserError("data=wright needs data.root=FOLDER (it holds train, val, test) and data.device=NAME.")
        self.zero_vu_dbfs = zero_vu_dbfs
        self._found = []
        for split in SPLITS:
            dry, wet = (Path(root).expanduser() / split / f"{device}-{side}.wav" for side in ("input", "target"))
            for path in (dry, wet):
                if not path.is_file():
                    raise UserError(f"data.root={root} holds no {split}/{path.name}: check data.root and data.device.")
            self._found.append(pair(dry, wet, split, 0))

    def takes(self) -> list[Take]:
        """One take a split."""
        return list(self._found)

    def floor_energy(self, split: str) -> None:
        """The device's noise is not known."""


class SignalTrain:
    """SignalTrain LA2A 1.1 (Hawley, Colburn, Mimilakis, doi 10.5281/zenodo.3824876): a compressor with two knobs.

    ``root/{Train,Val,Test}/input_N_.wav`` and ``target_N_LA2A_UNIT__SWITCH__PEAK.wav``; the knobs are the switch
    (0 compress, 1 limit) and the peak reduction (0 to 100, here 0 to 1). Raises UserError where a part is missing.
    """

    knobs = ("limit", "peak_reduction")
    _NAME = re.compile(r"target_(\d+)_LA2A_[^_]+__([01])__(\d+)$")

    def __init__(self, root: str | None, zero_vu_dbfs: float | None = None, cache_dir: str | None = None) -> None:
        if root is None:
            raise UserError("data=signaltrain needs data.root=FOLDER (it holds Train, Val, Test).")
        self.zero_vu_dbfs = zero_vu_dbfs
        self.index = Index(cache_dir, root)  # 24 hours are looked at once
        self._found = [take for split in SPLITS for take in self._part(Path(root).expanduser(), split)]

    def _part(self, root: Path, split: str) -> list[Take]:
        folder = root / split.capitalize()
        found = []
        for wet in sorted(path for path in folder.glob("target_*") if path.suffix.lower() in SUFFIXES):
            matched = self._NAME.match(wet.stem)
            if matched is None:
                raise UserError(f"{wet} is not named as in SignalTrain: target_N_LA2A_UNIT__SWITCH__PEAK.wav.")
            dry = folder / f"input_{matched[1]}_{wet.suffix}"
            knobs = (float(matched[2]), float(matched[3]) / 100)
            found.append(pair(dry, wet, split, 0, knobs, self.index))
        if not found:
            raise UserError(f"data.root={root} holds no {folder.name}/target_*.wav: name the unpacked folder.")
        return found

    def takes(self) -> list[Take]:
        """One take a recording."""
        return list(self._found)

    def floor_energy(self, split: str) -> None:
        """The device's noise is not known."""
