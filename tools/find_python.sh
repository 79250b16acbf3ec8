#!/bin/sh
# Print the Python that shall build the virtual environment: the newest on PATH, 3.11 at least.
# Usage: find_python.sh [PYTHON]      with PYTHON, that one or none.

new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

version() {
    "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || echo unknown
}

fail() {
    echo "error: $1" >&2
    echo "hint: $2" >&2
    exit 2
}

if [ -n "$1" ]; then
    command -v "$1" >/dev/null || fail "PYTHON=$1: no such program" \
        "name a Python 3.11 or newer, or leave PYTHON out: the newest on PATH is then taken"
    new_enough "$1" || fail "PYTHON=$1 is version $(version "$1"), and Broch needs 3.11 or newer" \
        "name a newer one, or leave PYTHON out: the newest on PATH is then taken"
    echo "$1"
    exit 0
fi

for python in python3.14 python3.13 python3.12 python3.11 python3; do
    if command -v "$python" >/dev/null && new_enough "$python"; then
        echo "$python"
        exit 0
    fi
done

if command -v python3 >/dev/null; then
    found="python3 is version $(version python3)"
else
    found="there is no python3 at all"
fi
fail "no Python 3.11 or newer on PATH; $found" \
    "install one (apt install python3), or name one: make PYTHON=/path/to/python3.12 ..."
