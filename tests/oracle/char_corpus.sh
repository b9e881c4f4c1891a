#!/bin/sh
# Writes the corpus of char_reference.py: the first 2,000,000 bytes of the King James Bible (public domain), one verse a
# line, without the references.  The text is that of Debian's packages bible-kjv and bible-kjv-text 4.38:
#   apt-get install bible-kjv bible-kjv-text
#   sh char_corpus.sh corpus.txt
set -eu
bytes=2000000
sha256=d9559307f6003d443a0c97d50bdd9a249314b497c17d1f4df28d243f6539b732
out=${1:?where to write the corpus}
HOME=/nonexistent bible -f -l 0 'Gen1:1-Rev22:21' </dev/null | LC_ALL=C sed 's/^[^ ]* //' | head -c $bytes >"$out"
echo "$sha256  $out" | sha256sum -c --quiet - || {
  echo "$out is another text than that of bible-kjv-text 4.38; the losses in char_reference.json will not apply" >&2
  exit 1
}
