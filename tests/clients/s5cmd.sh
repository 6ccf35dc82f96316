# s5cmd: parallel copy in and out, du, bulk delete.
set -euo pipefail
s() { s5cmd --endpoint-url "$ENDPOINT" "$@"; }
mkdir -p "$WORK/in/sub"
for i in $(seq 40); do head -c $((i * 3001)) /dev/urandom > "$WORK/in/sub/f$i"; done
head -c 60000000 /dev/urandom > "$WORK/in/large"
s mb "s3://$BUCKET"
s cp "$WORK/in/" "s3://$BUCKET/s5/"
s cp "s3://$BUCKET/s5/*" "$WORK/out/"
diff -r "$WORK/in" "$WORK/out"
s du "s3://$BUCKET/*"
s rm "s3://$BUCKET/*"
s rb "s3://$BUCKET"
