#!/bin/sh
# Makes .venv beside this folder ready: Debian packages named as arguments (root only), then the Python packages.
# Safe to run again; installs only what is missing.
set -eu
cd "$(dirname "$0")/.."

missing=""
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing:$missing"
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    else
        echo "these Debian packages are missing and only root can install them:$missing" >&2
        exit 1
    fi
fi

python=python3
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --upgrade pip setuptools wheel
echo "installing the Python packages"
.venv/bin/python -m pip install --quiet --editable '.[libmilter]' --group dev
