#!/usr/bin/env bash
# Each ```cpp block after a line `<!-- snippet: NAME -->` in README.md and docs/ must be the text between the lines
# `// [begin]` and `// [end]` of docs/snippets/NAME.cpp, which is built and run as the test docs.NAME.
set -u
cd "$(dirname "$0")/../.."
faults=0 count=0
for page in README.md docs/*.md; do
  while IFS=: read -r line marker; do
    name=$(printf '%s' "$marker" | sed -n 's/.*snippet: \([A-Za-z0-9_]*\).*/\1/p')
    count=$((count + 1))
    shown=$(awk -v from="$line" 'NR > from && /^```/ { if (inside) exit; inside = 1; next } NR > from && inside' "$page")
    built=$(sed -n '/^ *\/\/ \[begin\]/,/^ *\/\/ \[end\]/p' "docs/snippets/$name.cpp" | sed '/\/\/ \[begin\]/d; /\/\/ \[end\]/d')
    if [ "$shown" != "$built" ]; then
      diff -u <(printf '%s\n' "$built") <(printf '%s\n' "$shown") | head -30
      echo "$page:$line differs from docs/snippets/$name.cpp"
      faults=$((faults + 1))
    fi
  done < <(grep -n '<!-- snippet: ' "$page")
done
echo "$count snippets, $faults faults"
[ "$faults" -eq 0 ]
