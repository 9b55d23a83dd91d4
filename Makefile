# `make run` and `make test` need nothing but Debian 12, Python 3.11 and root: `setup` brings the rest.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

DEBIAN       := python3-venv libnftables1 nftables iproute2 conntrack iputils-ping strace iptables
DEBIAN_TEST  := prometheus prometheus-node-exporter chromium chromium-driver
DEBIAN_BENCH := containernetworking-plugins netavark iperf3 gcc libc6-dev

# Every package with the hash of each of its files: no other file is installed, whoever serves it.
INSTALL := pip install --quiet --require-hashes --requirement
INSTALL_OURS := pip install --quiet --no-index --no-deps --no-build-isolation
TOOLS := $(VENV)/tools

PREFIX := /opt/vethd
# The unit hides /home and /root, so the service must not run a Python that lives there.
SERVICE_PYTHON := $(firstword $(wildcard /usr/bin/python3) $(PYTHON))

define install_missing
missing=(); \
for package in $(1); do \
    dpkg-query --show --showformat='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$$package"); \
done; \
if (( $${#missing[@]} )); then \
    echo "installing Debian packages: $${missing[*]}"; \
    apt-get update -q; \
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$${missing[@]}"; \
fi
endef

# Debian starts and enables the services that it installs; the tests want the programs alone.
define install_unstarted
if (( $$(dpkg-query --show --showformat='$${Status}\n' $(1) 2>&1 | grep -c 'ok installed') < $(words $(1)) )); then \
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then \
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
        printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d; \
        chmod 0755 /usr/sbin/policy-rc.d; \
    fi; \
    $(call install_missing,$(1)); \
    if [[ -d /run/systemd/system ]]; then systemctl disable --quiet $(2); fi; \
fi
endef

define pin
$(TOOLS)/bin/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --annotation-style line \
    --no-header --no-emit-options --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
    $(UPGRADE) --output-file $(1) $(2)
sed -i '1i # `make lock` writes this.' $(1)
endef

.PHONY: help setup packages test-packages run test style types demo bench soak audit lock install uninstall clean

help: ## Show what can be made
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: packages $(VENV)/ready ## Install what is missing: Debian packages and .venv (nothing to do the second time)
	@# As any installer does: where Python is told to write no bytecode, each start would compile all of it.
	@$(BIN)/python -m compileall -q agent

packages:
	@$(call install_missing,$(DEBIAN))

$(VENV)/ready: pyproject.toml requirements/dev.txt | packages
	[[ -x $(BIN)/pip ]] || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/$(INSTALL) requirements/dev.txt
	@# "compat" puts this folder on the path by a line of text; the default runs an import hook at each start (20 ms).
	$(BIN)/$(INSTALL_OURS) --config-settings editable_mode=compat --editable .
	@touch $@

run: setup ## Run the agent on this host, in the foreground, with config/vethd.toml
	@exec $(BIN)/vethd --config config/vethd.toml run

test-packages: packages
	@$(call install_unstarted,$(DEBIAN_TEST),prometheus prometheus-node-exporter)
	@$(call install_missing,$(DEBIAN_BENCH))
	@tests/system/tools/install.sh

test: style types test-packages ## Everything that has to be green: format, lint, types, tests
	@# First what measures time, with nothing beside it; pytest says 5 where there is no such test.
	$(BIN)/pytest -m serial || (( $$? == 5 ))
	$(BIN)/pytest -n 2 --dist worksteal -m 'not serial'

style: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

demo: setup ## See it work in a private copy of a host; nothing outside is touched
	@exec $(BIN)/vethd demo

bench: setup ## Measure it beside the kernel's own work, a shell script, CNI and netavark
	@$(call install_missing,$(DEBIAN_BENCH))
	@$(call install_unstarted,prometheus-node-exporter,prometheus-node-exporter)
	$(BIN)/python -m tests.bench

soak: setup ## Have it live, die, be refused and interfered with for half an hour; nothing may be lost
	@$(BIN)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED))

$(TOOLS)/ready: requirements/tools.txt | packages
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/$(INSTALL) requirements/tools.txt
	@touch $@

audit: $(TOOLS)/ready ## Ask which of the pinned packages have known vulnerabilities
	$(TOOLS)/bin/pip-audit --strict --require-hashes --disable-pip $(foreach file,$(wildcard requirements/*.txt),--requirement $(file))

lock: $(TOOLS)/ready ## Pin what pyproject.toml asks for, with hashes; newer releases with UPGRADE=--upgrade
	$(call pin,requirements/service.txt,--all-build-deps pyproject.toml)
	$(call pin,requirements/dev.txt,--all-build-deps --extra dev --constraint requirements/service.txt pyproject.toml)
	$(call pin,requirements/tools.txt,requirements/tools.in)

install: packages ## Install the service: /opt/vethd, /etc/vethd/vethd.toml (kept if there), the systemd unit
	$(SERVICE_PYTHON) -m venv --clear $(PREFIX)/venv
	$(PREFIX)/venv/bin/$(INSTALL) requirements/service.txt
	@# What an earlier version has left in build would be installed too.
	rm -rf build
	$(PREFIX)/venv/bin/$(INSTALL_OURS) .
	rm -rf build
	ln -sf $(PREFIX)/venv/bin/vethd /usr/local/bin/vethd
	install -D -m 0644 config/vethd.service /etc/systemd/system/vethd.service
	install -D -m 0644 config/vethd.link /etc/systemd/network/10-vethd.link
	install -D -m 0644 config/vethd.network /etc/systemd/network/10-vethd.network
	if [[ -d /etc/NetworkManager ]]; then \
	    install -D -m 0644 config/networkmanager.conf /etc/NetworkManager/conf.d/90-vethd.conf; \
	fi
	if [[ ! -e /etc/vethd/vethd.toml ]]; then install -D -m 0644 config/vethd.toml /etc/vethd/vethd.toml; fi
	if [[ -d /run/systemd/system ]]; then systemctl daemon-reload; systemctl enable vethd; systemctl restart vethd; fi

uninstall: ## Stop the service, remove every trace of it from the host; the config stays
	if [[ -d /run/systemd/system ]]; then systemctl disable --now vethd || true; fi
	if [[ -x $(PREFIX)/venv/bin/vethd ]]; then $(PREFIX)/venv/bin/vethd down; fi
	rm -f /etc/systemd/system/vethd.service /etc/systemd/network/10-vethd.{link,network}
	rm -f /etc/NetworkManager/conf.d/90-vethd.conf /usr/local/bin/vethd
	rm -rf $(PREFIX)
	if [[ -d /run/systemd/system ]]; then systemctl daemon-reload; fi
	@echo 'kept: /etc/vethd'

clean: ## Remove what setup and the tests have made in this folder
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find agent tests -name __pycache__ -type d -prune -exec rm -rf {} +
