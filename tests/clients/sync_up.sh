# sync_up.sh DIRECTORY s3://BUCKET/PREFIX: makes the bucket and syncs into it.
set -euo pipefail
bucket=${2#s3://}
aws s3 mb "s3://${bucket%%/*}" >/dev/null 2>&1 || true
aws s3 sync --only-show-errors "$1" "$2"
