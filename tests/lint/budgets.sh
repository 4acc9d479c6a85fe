#!/usr/bin/env bash
# A file is read in one sitting, a line fits beside another, unfinished marks do not land,
# and every source file begins by saying what it is.
set -eu
cd "$(dirname "$0")/../.."
status=0
files=$(find base kernels proto worker daemon launcher tests -name '*.[ch]' -o -name '*.cu' -o -name '*.cc')
for f in $files; do
    n=$(wc -l <"$f")
    if [ "$n" -gt 800 ]; then
        echo "$f: $n lines (budget 800)"
        status=1
    fi
done
if grep -nE '^.{93,}$' $files; then
    echo "  ^ longer than 92 columns"
    status=1
fi
if grep -nEi '\b(TODO|FIXME|XXX|HACK)\b' $files; then
    echo "  ^ unfinished"
    status=1
fi
for f in $(find base kernels proto worker daemon launcher -name '*.h'); do
    if [ "$(head -c 2 "$f")" != '/*' ]; then
        echo "$f: does not begin by saying what it is"
        status=1
    fi
done
exit $status
