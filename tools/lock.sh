#!/bin/sh
# Resolves the newest versions that pyproject.toml allows in a clean environment and writes constraints.txt.
set -eu
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet '.[dev]'
{
  echo '# Versions that are known to work together; "make" and CI install with -c constraints.txt. Renew: tools/lock.sh'
  "$work/venv/bin/pip" freeze | grep -v '^konverge '
} > constraints.txt
