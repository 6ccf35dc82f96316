# sync_down.sh s3://BUCKET/PREFIX DIRECTORY
set -euo pipefail
mkdir -p "$2"
aws s3 sync --only-show-errors "$1" "$2"
