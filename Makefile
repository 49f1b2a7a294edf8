GO ?= go
BIN := bin/qinsconv

.PHONY: build test demo interop bench cross fuzz arm64 check clean

build: $(BIN)

$(BIN): FORCE
	$(GO) build -o $(BIN) ./cmd/qinsconv

.PHONY: FORCE
FORCE:

# Everything that runs in a minute or two and needs nothing but Go.
test:
	$(GO) vet ./...
	$(GO) test ./...
