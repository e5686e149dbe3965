# Every target sets up what it needs. PYTHON chooses the interpreter (3.10 to 3.13), ARGS are handed on.
PYTHON ?= python3
RUN = .venv/bin/python
# Two processes of tests, each of one thread: numpy's own would wait for each other.
TESTS = OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal

.PHONY: help setup train test test-all lint audit fuzz faults bench bench-demo paper sweep report

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:\t/'

setup: .venv/ready  ## virtual environment in .venv with everything installed

train: setup  ## train the default model on the built-in machine: make train ARGS="model=tcn"
	$(RUN) train.py $(ARGS)

test: setup  ## the tests, in a few minutes
	$(TESTS) -m "not slow" $(ARGS)

test-all: setup  ## the tests that need minutes, too
	$(TESTS) $(ARGS)

bench: setup  ## every benchmark, into docs/performance.md; PEERS=1 fetches other projects to compare with
	$(RUN) benchmarks/write_performance.py $(if $(PEERS),--peers) $(ARGS)

bench-demo: setup  ## capture, record on the virtual machine, align, train, measure: the data sheets side by side
	$(RUN) benchmarks/bench_demo.py $(ARGS)

paper: setup  ## a table, ours beside what was published: make paper P=wright2020 ARGS="jobs=2"
	$(RUN) -m revox_lightning.commands.paper paper=$(P) $(ARGS)

sweep: setup  ## a sweep without a server: make sweep S=learning_rates ARGS="trials=12 jobs=2"
	$(RUN) -m revox_lightning.commands.sweep sweeps/$(S).yaml $(ARGS)

report: setup  ## one page of runs to compare and to hear: make report R=outputs
	$(RUN) -m revox_lightning.commands.report $(or $(R),outputs) $(ARGS)

lint: setup  ## ruff and pyright
	$(RUN) -m ruff check . && $(RUN) -m ruff format --check . && $(RUN) -m pyright

audit: setup  ## pinned dependencies against known advisories
	$(RUN) benchmarks/audit.py

fuzz: setup  ## damaged and hostile files by every reader: make fuzz ARGS="--cases 1000"
	$(RUN) benchmarks/fuzz.py $(ARGS)

faults: setup  ## commands killed at random and started again: make faults KILLS=20 ARGS="--seed 1"
	$(RUN) benchmarks/faults.py --kills $(or $(KILLS),200) $(ARGS)

# Without a GPU the CPU build of torch is taken where pip offers one (its version ends in +cpu).
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	nvidia-smi >/dev/null 2>&1 || $(RUN) -m pip install --quiet "$$(sed -n 's/^torch==.*/&+cpu/p' constraints.txt)" 2>/dev/null || echo "no CPU build of torch found: installing the published one"
	$(RUN) -m pip install --quiet -c constraints.txt -e '.[dev]'
	$(RUN) -m revox_lightning.commands.doctor --fix
	@touch .venv/ready
