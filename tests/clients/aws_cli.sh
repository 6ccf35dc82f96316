# The AWS command line: sync both ways, multipart, ranges, conditional writes, presigned URLs.
set -euo pipefail
mkdir -p "$WORK/in/sub dir"
for i in 1 2 3; do head -c $((i * 3000000)) /dev/urandom > "$WORK/in/f$i"; done
head -c 20000000 /dev/urandom > "$WORK/in/large"
echo hi > "$WORK/in/sub dir/ü+x.txt"
: > "$WORK/in/empty"
aws s3 mb "s3://$BUCKET"
aws s3 sync --debug "$WORK/in" "s3://$BUCKET/aws" 2>"$WORK/debug.log" || {
    grep -aE 'Response headers|Response body|Retry needed|Traceback|Error' "$WORK/debug.log" | tail -60 | cut -c1-600
    exit 1
}
aws s3 sync "s3://$BUCKET/aws" "$WORK/out"
diff -r "$WORK/in" "$WORK/out"
aws s3 ls --recursive "s3://$BUCKET/" | grep -q 'aws/sub dir/ü+x.txt'
aws s3 cp "s3://$BUCKET/aws/large" "s3://$BUCKET/copy/large"
aws s3 cp "s3://$BUCKET/copy/large" - | cmp - "$WORK/in/large"
aws s3api put-object --bucket "$BUCKET" --key once --body "$WORK/in/f1" --if-none-match '*' >/dev/null
if aws s3api put-object --bucket "$BUCKET" --key once --body "$WORK/in/f2" --if-none-match '*' 2>"$WORK/err"; then
    echo "a second create succeeded"; exit 1
fi
grep -q PreconditionFailed "$WORK/err"
aws s3api get-object --bucket "$BUCKET" --key aws/large --range bytes=5000000-5000099 "$WORK/range" >/dev/null
cmp "$WORK/range" <(tail -c +5000001 "$WORK/in/large" | head -c 100)
# Without this the command line signs URLs by version 2, which is not served.
printf '[default]\ns3 =\n    signature_version = s3v4\n' > "$WORK/config"
url=$(AWS_CONFIG_FILE=$WORK/config aws s3 presign "s3://$BUCKET/aws/f2")
curl -sf "$url" | cmp - "$WORK/in/f2"
aws s3 rm --recursive "s3://$BUCKET/copy" >/dev/null
aws s3 mv "s3://$BUCKET/aws/f1" "s3://$BUCKET/moved/f1"
aws s3 rb --force "s3://$BUCKET" >/dev/null
if aws s3api head-bucket --bucket "$BUCKET" 2>/dev/null; then echo "the bucket is still there"; exit 1; fi
