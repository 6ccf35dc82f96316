# s3cmd: make a bucket, sync with multipart, read back, list, delete.
set -euo pipefail
s() { s3cmd -c /dev/null --access_key="$AWS_ACCESS_KEY_ID" --secret_key="$AWS_SECRET_ACCESS_KEY" --host="$HOST_PORT" \
    --host-bucket="$HOST_PORT" --no-ssl --region=us-east-1 --multipart-chunk-size-mb=5 --no-progress "$@"; }
mkdir -p "$WORK/in/sub"
for i in 1 2 3; do head -c $((i * 4000000)) /dev/urandom > "$WORK/in/f$i"; done
echo text > "$WORK/in/sub/a+b c.txt"
s mb "s3://$BUCKET"
s sync "$WORK/in/" "s3://$BUCKET/s3c/"
mkdir "$WORK/out"
s sync "s3://$BUCKET/s3c/" "$WORK/out/"
diff -r "$WORK/in" "$WORK/out"
s ls -r "s3://$BUCKET" | grep -q 'sub/a+b c.txt'
s cp "s3://$BUCKET/s3c/f1" "s3://$BUCKET/copied"
s del -r --force "s3://$BUCKET"
s rb "s3://$BUCKET"
