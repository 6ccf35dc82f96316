# restic: back up, verify every byte, forget, prune, restore (signed aws-chunked uploads, ranges).
set -euo pipefail
export RESTIC_PASSWORD=test RESTIC_REPOSITORY=s3:$ENDPOINT/$BUCKET/restic XDG_CACHE_HOME=$WORK/cache
mkdir -p "$WORK/in"
for i in 1 2 3; do head -c $((i * 3000000)) /dev/urandom > "$WORK/in/f$i"; done
restic init
restic backup "$WORK/in"
rm "$WORK/in/f1"
restic backup "$WORK/in"
restic check --read-data
restic forget --keep-last 1 --prune
restic restore latest --target "$WORK/out"
diff -r "$WORK/in" "$WORK/out$WORK/in"
