# `make` lists the verbs. demo and the tests use the server of $CI_DATABASE_URL. Without that
# they start servers that end with the command.

GO ?= go
TOOL = $(GO) tool -modfile=tools/go.mod
# Modules whose tests belong to those of the library.
MODULES = examples/integrations examples/migrations cmd/pglocker ui analysis contrib/otel contrib/gocron contrib/certmagic contrib/clientgo

.DEFAULT_GOAL := help
.PHONY: help demo cli cli-docs migrations test test-acc test-short test-matrix cover bench bench-quick fuzz verify verify-distributed verify-ha verify-long verify-mutants lint release-trial fmt clean postgres

help: ## List the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: postgres ## Show it at work: three processes, one lock, a kill and a pause
	@$(GO) build -o bin/demo ./examples/demo
	@exec bin/demo

cli: ## Build the command, bin/pglocker
	@cd cmd/pglocker && $(GO) build -o ../../bin/pglocker .

cli-docs: ## Write docs/cli.md from the commands
	@cd cmd/pglocker && $(GO) run . docs >../../docs/cli.md.new && mv ../../docs/cli.md.new ../../docs/cli.md

migrations: ## Write the files for migration tools from those of the folder migrations
	@.ci/migrations

# The packages whose tests take longest go first, so that none of them is left alone at the end.
test: postgres ## Run every test
	$(GO) test -count=1 -timeout=20m $(TESTFLAGS) ./internal/faulttest . ./internal/store ./pgtesting ./...
	@for m in $(MODULES); do echo "=== $$m" && (cd $$m && $(GO) test -count=1 ./...) || exit 1; done

test-acc: ## Run every test with the race detector, shuffled, with a coverage profile
	@$(MAKE) test TESTFLAGS='-race -shuffle=on -covermode=atomic -coverpkg=./... -coverprofile=coverage.out'

test-short: ## Run the tests that need no database
	$(GO) test -short ./...
	cd bench && $(GO) test ./...
	cd cmd/pglocker && $(GO) test -short ./...
	cd ui && $(GO) test -short ./...

test-matrix: ## Run the tests that depend on the server on PostgreSQL 12 to 18, or on MAJORS="12 18"
	@GO=$(GO) .ci/matrix $(MAJORS)

fuzz: postgres ## Fuzz every parser and encoder, each for 30 s, or for TIME=5m
	@GO=$(GO) .ci/fuzz $(TIME)

verify: postgres ## Break everything, once each, and check every promise (about 5 minutes); FLAGS='-seed 1 -only net-cut'
	@cd verify && $(GO) test -count=1 ./... && $(GO) build -o ../bin/verify .
	@cd verify && exec ../bin/verify $(FLAGS)

verify-ha: postgres ## Fail over, also under Patroni, for about seven minutes, and check every promise; FLAGS as above
	@.ci/patroni
	@cd verify && $(GO) build -o ../bin/verify . && exec ../bin/verify -ha -duration 5m $(FLAGS)

verify-long: postgres ## Break everything, round after round, for an hour or more; FLAGS='-duration 8h -seed 1 -table t.md', or FLAGS=-resume
	@cd verify && $(GO) build -o ../bin/verify . && exec ../bin/verify -long -duration 1h $(FLAGS)

verify-distributed: postgres ## Break a cluster of Citus, for about five minutes, if the installed PostgreSQL has it; FLAGS as above
	@cd verify && $(GO) build -o ../bin/verify . && exec ../bin/verify -distributed -duration 5m $(FLAGS)

verify-mutants: postgres ## Break the library on purpose, and check that make verify notices
	@cd verify && $(GO) build -o ../bin/verify . && exec ../bin/verify -mutants $(FLAGS)

cover: coverage.out ## Show what the last test-acc covered
	@$(GO) tool cover -func=coverage.out
	@$(GO) tool cover -html=coverage.out -o coverage.html
	@echo "Line by line: coverage.html"

coverage.out:
	@$(MAKE) test-acc

bench: postgres ## Measure against other locks, about fourteen minutes; writes docs/performance.md
	@cd bench && $(GO) build -o ../bin/bench .
	@exec bin/bench -results bench/results/full.txt -report docs/performance.md

bench-quick: postgres ## Measure in about a minute, and print which goals are reached
	@cd bench && $(GO) build -o ../bin/bench .
	@exec bin/bench -quick -results bench/results/quick.txt

lint: ## Check formatting (gofmt, gofumpt), go vet, staticcheck, the workflows, the API against the last release
	@files=$$(gofmt -l . && $(TOOL) gofumpt -l .) && if [ -n "$$files" ]; then \
		printf 'not formatted, run make fmt:\n%s\n' "$$files"; exit 1; fi
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	@for m in bench verify $(MODULES); do echo "=== $$m" && (cd $$m && $(GO) vet ./... && $(GO) tool -modfile=$(CURDIR)/tools/go.mod staticcheck ./...) || exit 1; done
	$(TOOL) actionlint -shellcheck= -pyflakes=
	@GO=$(GO) .ci/release-api

release-trial: ## Make a release in a clone, use it from outside, and forget it
	@GO=$(GO) .ci/release --trial

fmt: ## Format the code
	$(TOOL) gofumpt -w .

clean: ## Remove the files that the other verbs made
	rm -rf bin coverage.out coverage.html verify/failures verify/long.json verify/long.json.new

postgres:
	@.ci/postgres
