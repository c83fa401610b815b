# The usual commands. Everything runs in .venv, which `make venv` creates from the locked dependencies.
BIN := .venv/bin

.PHONY: venv test fast unit plan flink integration web nova cinder faults lint format goldens docs release lock jars bench

venv: $(BIN)/vacancy
$(BIN)/vacancy: requirements/dev.lock pyproject.toml
	test -d .venv || python3.11 -m venv .venv
	$(BIN)/pip install -q uv
	$(BIN)/uv pip install -q --python $(BIN)/python -r requirements/dev.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	touch $@

test:  ## everything that must pass; works on a fresh machine too
	./test.sh

fast: venv  ## takes seconds: no JVM, no server
	$(BIN)/pytest tests/unit

unit plan flink integration web nova cinder faults: venv  ## one layer
	$(BIN)/pytest tests/$@

lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

goldens: venv  ## rewrites the golden cases' expected outputs; review the diff afterwards
	VACANCY_REGENERATE_GOLDENS=1 $(BIN)/pytest tests/flink/test_golden.py tests/unit/test_settings.py tests/unit/test_reference.py

docs: venv  ## the pages as a site, in build/site; a link or an anchor that leads nowhere is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

release: venv  ## builds and checks the wheel, the source distribution and the bills of materials of the commit
	$(BIN)/python .ci/release.py

lock: venv  ## updates the lock files to the newest versions that the ranges in pyproject.toml allow
	$(BIN)/uv pip compile -q -U pyproject.toml --extra dev --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links -o requirements/dev.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra local -c requirements/dev.lock --generate-hashes \
		--python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links -o requirements/local.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra agent --extra cinder --extra extender --extra registry --extra scheduler --extra web -c requirements/dev.lock \
		--generate-hashes --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links -o requirements/agent.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra libvirt -c requirements/dev.lock \
		--generate-hashes --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links -o requirements/libvirt.lock
	$(BIN)/uv pip compile -q pyproject.toml --extra agent --extra java --extra job --extra registry --extra simulate \
		-c requirements/dev.lock --generate-hashes --python-version 3.11 --no-header --no-emit-index-url \
		--no-emit-find-links -o requirements/flink.lock
	$(BIN)/uv pip compile -q -U requirements/build.in --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links -o requirements/build.lock
	$(BIN)/uv pip compile -q -U requirements/release.in --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links -o requirements/release.lock
	$(BIN)/uv pip compile -q -U requirements/placement.in --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links -o requirements/placement.lock
	$(BIN)/uv pip compile -q -U requirements/peer.in --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links -o requirements/peer.lock
	$(BIN)/uv pip compile -q -U requirements/nova.in --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links -o requirements/nova.lock
	$(BIN)/uv pip compile -q -U requirements/ceilometer.in --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links -o requirements/ceilometer.lock
	$(BIN)/uv pip compile -q -U requirements/cinder.in --generate-hashes --python-version 3.11 --no-header \
		--no-emit-index-url --no-emit-find-links -o requirements/cinder.lock

jars: venv  ## updates the lock file of the jars
	$(BIN)/python -m vacancy.jobs.jars lock

bench: venv
	$(BIN)/python -m bench.simulate_rate
	$(BIN)/python -m bench.agent_cost
	$(BIN)/python -m bench.ingest
	$(BIN)/python -m bench.freshness
	$(BIN)/python -m bench.sink
	$(BIN)/python -m bench.decode
	$(BIN)/python -m bench.poison
	$(BIN)/python -m bench.catch_up
	$(BIN)/python -m bench.catch_up --events 10000000 --rounds 1 --only production --save-as catch_up_10m
	$(BIN)/python -m bench.claims
	$(BIN)/python -m bench.live_claims
	$(BIN)/python -m bench.complex_claims
	$(BIN)/python -m bench.packing
	$(BIN)/python -m bench.nova
	for what in cost browser questions beside live; do $(BIN)/python -m bench.web $$what || exit; done
	$(BIN)/python -m bench.first_command --picture docs/up.svg
	$(BIN)/python -m bench.report
