"""How each command is called: apart from the commands, so that --help needs nothing else."""

ACTIVE = (
    "revox active run=FOLDER dry=FILE knob.NAME=LOW:HIGH [knob.SWITCH=A,B ...], or revox active run=FOLDER "
    "machine=a77_7.5ips [dry=FILE] [knob.record_level_db=-6:12 ...], each with [recordings=20] [start=8] [per_round=4] "
    "[ensemble=4] [restarts=10] [steps=250] [ascent_seconds=2] [acquisition=relative|variance] "
    "[design=active|random|grid] [align=constant|varying] [seed=0] [model=lstm size=16 trainer.max_epochs=20 ...]; "
    "revox active run=FOLDER goes on"
)
ALIGN = (
    "revox align TAPE.wav RECORDED.wav [loopback=FILE] [mode=monitor|second_pass] [calibration_tape=FILE "
    "calibration_flux_nwb_per_m=NUMBER] [out=FOLDER], or revox align dry=FILE wet=FILE [pulses=auto|left|right|none] "
    "[out=FOLDER]"
)
BENCH = "revox bench FOLDER"
CAPTURE = (
    "revox capture OUT.wav [programme=FILE_OR_FOLDER ...] [sample_rate_hz=48000] [subtype=PCM_24] [channels=2] "
    "[zero_vu_dbfs=-18] [speed_seconds=60]"
)
EVALUATE = "revox evaluate run=outputs/NAME/TIME [data=recordings data.root=FOLDER ...] [kernels=auto]"
EXPORT = (
    "revox export run=outputs/NAME/TIME|FILE.nam format=nam|rtneural|aidax|proteus|onnx|torchscript [out=FILE] "
    "[controls=0.5,0.5] [channel=left|right] [normalise=DBFS] [input_level_dbu=DBU] [output_level_dbu=DBU] [name=TEXT] "
    "[modeled_by=TEXT] [gear_make=TEXT] [gear_model=TEXT] [gear_type=TEXT] [tone_type=TEXT]"
)
LISTEN = (
    "revox listen outputs/RUN [outputs/RUN ...] [kind=mushra|abx] [out=listen.html] [trials=6, of abx 12] [seconds=8] "
    "[repeat=1] [seed=0], or revox listen results=FILE_OR_FOLDER [out=FOLDER]"
)
MACHINE = "revox machine IN OUT preset=a77_7.5ips [without=transport,hiss] [seed=0] [truth=FILE.npz] [machine.mol_db=8]"
MEASURE = (
    "revox measure machine=NAME [machine=NAME ...] | run=FOLDER [run=...] | IN.wav OUT.wav [out=FOLDER] [kernels=auto]"
)
PAPER = (
    "revox paper paper=NAME [seeds=3] [jobs=1] [sets=a,b] [rows=a,b] [set.NAME=FOLDER] [out=outputs/paper/NAME] "
    "[logger=wandb] [trainer.max_epochs=20 ...]"
)
RENDER = (
    "revox render run=outputs/NAME/TIME IN OUT [input_db=0] [output_db=0] [controls=0.5,0.5] [kernels=auto] "
    "[block_samples=16384] [threads=2] [wow_flutter=1] [hiss=1] [seed=0]"
)
SCORE = "revox score FOLDER bench=BENCH_FOLDER [name=TEXT] [out=FOLDER_scored] [card=CARD.json]"
REPORT = "revox report outputs/FOLDER [outputs/OTHER ...] [out=report.html] [excerpts=6] [seconds=10]"
SWEEP = (
    "revox sweep sweeps/NAME.yaml [out=outputs/sweeps/NAME] [trials=20] [jobs=1] [seed=0] [trainer.max_epochs=4 ...]"
)
STATUS = "revox status [outputs/FOLDER ...]"
SYNC = "revox sync outputs/NAME/TIME [outputs/NAME/OTHER ...]"
DOCTOR = "revox doctor [--fix]"
TRANSFER = "revox transfer run=outputs/NAME/TIME style=REFERENCE IN OUT, or revox transfer knobs=FILE.json IN OUT"
TEXTURE = (
    "revox texture style=REFERENCE content=IN OUT [texture=mcdermott|shallow_random] [iterations=300] [seconds=240] "
    "[content_weight=4; published 0] [start=content|noise] [window_seconds=10] [bands=32] [filters=4096] [seed=0]"
)
