# The index of everything one can do here. Debian 12 or newer, root for what has to be installed.
PY      := .venv/bin/python
VENV    := .venv/.ready
APT     := python3 python3-venv python3-dev gcc libmilter-dev ca-certificates
# for what only test-full needs: Node's gRPC client, and buf
APT_FULL := nodejs npm
FULL    := .venv/.full
JOBS    ?= 2

# Tests through real servers depend on a loaded machine's timing: what failed gets one second try, said aloud.
AGAIN   = { echo "some tests failed: trying those once more"; false; } || $(PY) -m pytest --last-failed --last-failed-no-failures none

# What works with the functions that are compiled where there is a compiler: once more with those in Python.
WITHOUT_C = tests/octets tests/vocabulary/test_makers.py tests/vocabulary/test_message.py tests/milter/test_protocol.py tests/milter/test_session.py tests/dkim tests/arc

.PHONY: help demo test test-full check format run fuzz soak bench profile proto docs clean

help:               ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

$(VENV): pyproject.toml contrib/setup.sh authmilter/octets/_compiled.c authmilter/_makers.c
	sh contrib/setup.sh $(APT)
	@touch $@

demo: $(VENV)       ## a private Postfix, real SMTP sessions, and what became of them (under a minute)
	$(PY) contrib/demo.py

run: $(VENV)        ## the service with its defaults, in the foreground
	@$(PY) -m authmilter run --show-postfix

test: $(VENV) check ## all units, suites, and one end-to-end pass per engine
	$(PY) -m pytest -n $(JOBS) -m "not slow" || $(AGAIN) -m "not slow"

$(FULL): $(VENV)
	command -v npm >/dev/null || sh contrib/setup.sh $(APT_FULL)
	@touch $@

test-full: $(FULL)  ## what is slow: Sendmail, other programs (OpenDKIM, rspamd, buf, Node), faults, large and many
	$(PY) -m pytest -m slow || $(AGAIN) -m slow
	AUTHMILTER_PURE=1 $(PY) -m pytest -n $(JOBS) -m "not slow" $(WITHOUT_C)

check: $(VENV)      ## ruff and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(VENV)     ## let ruff put the code in order
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

fuzz: $(VENV)       ## every parser of strangers' bytes, for FUZZ_SECONDS each (default 60)
	$(PY) tests/fuzz/run.py

soak: $(VENV)       ## the service under load with reloads and killed workers, for SOAK_SECONDS (default 600)
	$(PY) tests/e2e/soak.py

bench: $(VENV)      ## beside other milters where the rig is set up, else our micro-benchmarks (BENCH="--micro" for those)
	$(PY) tests/benchmarks/bench.py $(BENCH)

profile: $(VENV)    ## a flame graph of a worker under load: profile.svg
	$(PY) tests/benchmarks/flame.py

proto: $(VENV)      ## the code generated from proto/
	$(PY) contrib/generate_proto.py

docs: $(VENV)       ## the generated parts of docs/
	$(PY) -m authmilter.policy.reference < docs/policy-language.md > docs/policy-language.md.new
	mv docs/policy-language.md.new docs/policy-language.md

clean:
	rm -rf .venv .e2e .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info
