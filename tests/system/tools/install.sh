#!/usr/bin/env bash
# Installs the tools of other people that the tests run, and starts none of their services. What could be had only
# by removing another package (docker.io where there is docker-ce, say) is left out: its tests are skipped then.
set -euo pipefail

# A package, and the services that it would start.
tools=(
    "busybox-static"
    "bubblewrap"
    "runc"
    "podman podman.service podman.socket podman-restart.service podman-auto-update.timer"
    "netavark"
    "containernetworking-plugins"
    "containerd containerd.service"
    "docker.io docker.service docker.socket"
    "lxc lxc.service lxc-net.service lxc-monitord.service"
    "systemd-container"
    "mininet"
    "bridge-utils"
)

is_installed() {
    [[ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" == installed ]]
}

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends --no-remove "$@"
}

missing=()
for tool in "${tools[@]}"; do
    is_installed "${tool%% *}" || missing+=("$tool")
done
if (( ${#missing[@]} == 0 )); then
    exit 0
fi

if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
    chmod 0755 /usr/sbin/policy-rc.d
fi
packages=("${missing[@]%% *}")
echo "installing Debian packages: ${packages[*]}"
apt-get update -q
install "${packages[@]}" || for package in "${packages[@]}"; do
    install "$package" || echo "not installed, its tests are skipped: $package"
done
if [[ -d /run/systemd/system ]]; then
    for tool in "${missing[@]}"; do
        read -r package services <<< "$tool"
        if [[ -n "$services" ]] && is_installed "$package"; then
            # shellcheck disable=SC2086  one word each
            systemctl disable --quiet $services
        fi
    done
fi
