#!/usr/bin/env bash
# device_views.sh FOLDER: modules, models and training under FOLDER (include/guild) hand memory on as DeviceView. The
# word View<, by which a device's memory would become indexable, stands only where the memory is the host's; and nobody
# reads through the pointer of a view.
set -u
root=$1
faults=0
# file: why its views are of host memory
host='
modules/batch.hpp: positions as the caller read them with host_view
modules/match_plan.hpp: lists in memory that the device lends to the host
modules/match_tokens.hpp: lists in memory that the device lends to the host
modules/observer.hpp: what an observer on the host is shown, from host_view
modules/routing_statistics.hpp: counts of its own, and choices from host_view
training/optimizer.hpp: the comment on what a visitor of moments is given
training/training_batch.hpp: the targets of a batch that a loader made
'
while IFS=: read -r file line text; do
  inside=${file#"$root"/}
  if printf '%s\n' "$host" | grep -q "^$inside: "; then continue; fi
  echo "$file:$line: View< of a device's memory; write DeviceView<, or read it with host_view:$text"
  faults=$((faults + 1))
done < <(grep -rnE '(^|[^A-Za-z_])View<' "$root/modules" "$root/models" "$root/training")
while IFS= read -r hit; do
  echo "$hit: reads through the pointer of a view"
  faults=$((faults + 1))
done < <(grep -rnE '(^|[^A-Za-z_])View\(|MatrixView|VectorView|\.data\[|\*[a-z_.]+\.data([^A-Za-z_.(]|$)' "$root/modules" "$root/models" "$root/training")
while IFS= read -r file; do
  if [ -n "$file" ] && ! grep -qE '(^|[^A-Za-z_])View<' "$root/$file"; then
    echo "$file: has no View< any more; take it off the list of device_views.sh"
    faults=$((faults + 1))
  fi
done < <(printf '%s\n' "$host" | sed 's/:.*//')
if [ "$faults" -gt 0 ]; then
  echo "$faults faults"
  exit 1
fi
echo "device views hold"
