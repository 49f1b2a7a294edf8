GO ?= go
TMP ?= $(or $(TMPDIR),/tmp)
BIN := bin/qinsconv

.PHONY: build test demo interop slurm llama fuzz race arm64 i386 cross check-kernels bench profile clean FORCE

build: $(BIN)

$(BIN): FORCE
	@mkdir -p bin
	$(GO) build -trimpath -o $(BIN) ./cmd/qinsconv

# Everything that needs nothing but Go.
test:
	$(GO) vet ./...
	$(GO) test ./...

# The toy model of the bug report, converted, verified and accounted for.
demo: $(BIN)
	@mkdir -p bin/demo
	@$(GO) run ./fixtures/mkmodel toy -tie offset bin/demo/toy.safetensors
	@for layout in plain packed compact; do \
		$(BIN) --force --quiet --layout $$layout bin/demo/toy.safetensors bin/demo/toy-$$layout.qins && \
		$(BIN) verify --against bin/demo/toy.safetensors bin/demo/toy-$$layout.qins || exit; \
	done
	@$(GO) run ./fixtures/demo bin/demo/toy-plain.qins bin/demo/toy-packed.qins bin/demo/toy-compact.qins

# The stock Python libraries and a decoder written from docs/format.md against
# the command. Needs python3 with venv, and the zstd command where CI=true.
interop: $(BIN) .venv
	$(GO) build -o bin/mkmodel ./fixtures/mkmodel
	.venv/bin/python .ci/interop/run.py $(BIN) bin/mkmodel

.venv: .ci/interop/requirements.txt
	@python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make interop needs python3, 3.11 or later, with venv (Debian, Ubuntu: apt-get install python3-venv)" >&2; exit 1; }
	rm -rf .venv
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $< || { rm -rf .venv; exit 1; }
	@touch .venv

# docs/cluster/slurm.sh under a Slurm that is started for it, on this machine.
slurm: $(BIN)
	$(GO) build -o bin/mkmodel ./fixtures/mkmodel
	.ci/slurm.sh $(BIN) bin/mkmodel

# Decoded GGUF models in llama.cpp. Its Python binding is built from its source
# package, once: that takes minutes, cmake and a C++ compiler.
llama: $(BIN) bin/llama
	bin/llama/bin/python .ci/interop/llama.py $(BIN)

bin/llama: .ci/interop/llama-requirements.txt
	rm -rf bin/llama
	@mkdir -p bin
	python3 -m venv bin/llama
	CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF" CMAKE_BUILD_PARALLEL_LEVEL=2 \
		bin/llama/bin/python -m pip install --quiet --disable-pip-version-check -r $< || { rm -rf bin/llama; exit 1; }
	@touch bin/llama

# Each fuzz target a fixed number of times, from its kept corpus.
FUZZ ?= 20000
fuzz:
	@set -e; for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep ^Fuzz || true); do \
			$(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZ)x -fuzzminimizetime 1x $$pkg; \
		done; \
	done

# With the race detector, which needs a C compiler.
race:
	CGO_ENABLED=1 $(GO) test -race -short ./convert

# The same tests as another architecture, under user emulation.
QEMU_ARM64 ?= qemu-aarch64-static
arm64:
	GOARCH=arm64 $(GO) vet ./...
	GOARCH=arm64 $(GO) test -exec $(QEMU_ARM64) ./format/... ./qins/... ./convert ./fixtures/...

# The same tests with an int of 32 bits, which amd64 runs by itself.
i386:
	GOARCH=386 $(GO) vet ./...
	GOARCH=386 $(GO) test ./format/... ./qins/... ./convert ./cmd/...

# Everything compiles where it is said to run, and without assembly.
cross:
	@set -e; for target in linux/arm64 darwin/arm64 darwin/amd64 windows/amd64 linux/386 linux/s390x; do \
		echo "$$target"; \
		CGO_ENABLED=0 GOOS=$${target%/*} GOARCH=$${target#*/} $(GO) build -o /dev/null ./cmd/qinsconv; \
	done
	$(GO) vet -tags noasm ./...

clean:
	rm -rf bin .venv

# One table from one run: the kernels beside a memory copy, the code planes
# beside the levels of zstd, whole conversions beside cp. BENCH_DIR is best on a
# tmpfs with 12 GB free.
BENCH_DIR ?= /dev/shm
BENCH_RUNS ?= 5
bench: $(BIN)
	$(GO) test -run '^$$' -bench . -benchtime 7x -cpu 1 ./qins/codec
	$(GO) test -run '^$$' -bench CodePlane -cpu 1 ./qins
	$(GO) run ./fixtures/bench -bin $(BIN) -dir $(BENCH_DIR) -runs $(BENCH_RUNS)

# Where the time and the memory of a conversion go: PROFILE is one of the
# benchmarks of ./convert, such as Convert/packed/BF16.
PROFILE ?= Convert/compact/BF16
profile:
	@mkdir -p bin
	$(GO) test -run '^$$' -bench '^Benchmark$(subst /,$$/^,$(PROFILE))$$' -benchtime 10x -o bin/convert.test \
		-cpuprofile bin/cpu.prof -memprofile bin/mem.prof ./convert
	$(GO) tool pprof -top -nodecount 25 bin/convert.test bin/cpu.prof
	$(GO) tool pprof -top -nodecount 10 -sample_index alloc_space bin/convert.test bin/mem.prof
