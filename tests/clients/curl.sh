# curl: its own SigV4, a slow upload with Expect: 100-continue, a HEAD, an anonymous request.
set -euo pipefail
c() { curl -s --aws-sigv4 "aws:amz:us-east-1:s3" --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" "$@"; }
head -c 3000000 /dev/urandom > "$WORK/f"
c -f -X PUT "$ENDPOINT/$BUCKET" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD"
c -f -T "$WORK/f" "$ENDPOINT/$BUCKET/f" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" -H "Expect: 100-continue"
c -f "$ENDPOINT/$BUCKET/f" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" | cmp - "$WORK/f"
c -f -I "$ENDPOINT/$BUCKET/f" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" | grep -qi 'content-length: 3000000'
[[ $(curl -s -o /dev/null -w '%{http_code}' "$ENDPOINT/$BUCKET/f") = 403 ]]
[[ $(c -o /dev/null -w '%{http_code}' "$ENDPOINT/$BUCKET/none" -H "x-amz-content-sha256: UNSIGNED-PAYLOAD") = 404 ]]
