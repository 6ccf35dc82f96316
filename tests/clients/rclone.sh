# rclone: sync, check by downloading, server-side copy, list, purge.
set -euo pipefail
export RCLONE_CONFIG=/dev/null RCLONE_CONFIG_H_TYPE=s3 RCLONE_CONFIG_H_PROVIDER=Other RCLONE_CONFIG_H_ENDPOINT=$ENDPOINT \
    RCLONE_CONFIG_H_ACCESS_KEY_ID=$AWS_ACCESS_KEY_ID RCLONE_CONFIG_H_SECRET_ACCESS_KEY=$AWS_SECRET_ACCESS_KEY RCLONE_CONFIG_H_REGION=us-east-1
mkdir -p "$WORK/in/a b"
for i in 1 2 3; do head -c $((i * 2500000)) /dev/urandom > "$WORK/in/f$i"; done
echo hello > "$WORK/in/a b/naïve+plus&amp.txt"
rclone mkdir "H:$BUCKET"
rclone sync "$WORK/in" "H:$BUCKET/rc"
rclone check --download "$WORK/in" "H:$BUCKET/rc"
rclone copyto "H:$BUCKET/rc/f1" "H:$BUCKET/rc2/f1"
rclone copyto --s3-chunk-size 5M --s3-upload-cutoff 5M "$WORK/in/f3" "H:$BUCKET/multi"
rclone cat "H:$BUCKET/multi" | cmp - "$WORK/in/f3"
rclone sync "H:$BUCKET/rc" "$WORK/out"
diff -r "$WORK/in" "$WORK/out"
rclone purge "H:$BUCKET"
