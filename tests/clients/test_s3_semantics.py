"""What S3 means, checked with boto3: python test_s3_semantics.py ENDPOINT ACCESS_KEY SECRET_KEY

Each check is a function; they run in the order written and print their names. Small objects only: it is the answers
that are looked at, not the bytes moved.
"""

import base64
import contextlib
import datetime
import hashlib
import json
import sys
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request
import uuid
import zlib

import boto3
import botocore
from botocore.client import Config

ENDPOINT, ACCESS_KEY, SECRET_KEY = sys.argv[1:4]
PART = 5 << 20
s3 = boto3.client(
    "s3",
    endpoint_url=ENDPOINT,
    aws_access_key_id=ACCESS_KEY,
    aws_secret_access_key=SECRET_KEY,
    region_name="us-east-1",
    config=Config(signature_version="s3v4", s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
)
RUN = uuid.uuid4().hex[:8]
BUCKET, VERSIONED, OTHER = f"semantics-{RUN}", f"semantics-versions-{RUN}", f"semantics-other-{RUN}"
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


@contextlib.contextmanager
def refused(code, status=None):
    """The block ends in this error; HEAD has no body, so there the code is the status."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        found = (error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"])
        assert found[0] == code and status in (None, found[1]), f"expected {code} {status}, got {found}: {error}"
        assert error.response["ResponseMetadata"]["RequestId"]
    else:
        raise AssertionError(f"expected {code}, and it went well")


def put(key, body=b"", bucket=BUCKET, **more):
    return s3.put_object(Bucket=bucket, Key=key, Body=body, **more)


def get(key, bucket=BUCKET, **more):
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


def md5(body):
    return hashlib.md5(body).hexdigest()


def quoted(text):
    return f'"{text}"'


@check
def buckets():
    for bucket in (BUCKET, VERSIONED, OTHER):
        s3.create_bucket(Bucket=bucket)
        s3.head_bucket(Bucket=bucket)
    assert {BUCKET, VERSIONED, OTHER} <= {b["Name"] for b in s3.list_buckets()["Buckets"]}
    assert s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] is None
    page = s3.list_buckets(Prefix="semantics-", MaxBuckets=1)
    assert len(page["Buckets"]) == 1 and page["ContinuationToken"]
    with refused("404", 404):
        s3.head_bucket(Bucket=f"no-such-{RUN}")
    with refused("NoSuchBucket", 404):
        s3.list_objects_v2(Bucket=f"no-such-{RUN}")
    with refused("NoSuchBucket", 404):
        put("k", bucket=f"no-such-{RUN}")
    with refused("InvalidBucketName", 400):
        s3.meta.events.unregister("before-parameter-build.s3", botocore.handlers.validate_bucket_name)
        s3.create_bucket(Bucket="Not_A_Name")


@check
def objects():
    body = bytes(range(256)) * 100
    answer = put("plain", body)
    assert answer["ETag"] == quoted(md5(body))
    assert get("plain") == body
    head = s3.head_object(Bucket=BUCKET, Key="plain")
    assert (head["ContentLength"], head["ETag"]) == (len(body), answer["ETag"])
    assert head["ContentType"] == "binary/octet-stream" and head["AcceptRanges"] == "bytes"
    age = datetime.datetime.now(datetime.timezone.utc) - head["LastModified"]
    assert abs(age.total_seconds()) < 60
    put("plain", b"again")
    assert get("plain") == b"again"
    put("empty")
    assert get("empty") == b"" and s3.head_object(Bucket=BUCKET, Key="empty")["ETag"] == quoted(md5(b""))
    s3.delete_object(Bucket=BUCKET, Key="plain")
    s3.delete_object(Bucket=BUCKET, Key="plain")
    with refused("NoSuchKey", 404):
        get("plain")
    with refused("404", 404):
        s3.head_object(Bucket=BUCKET, Key="plain")
    with refused("KeyTooLongError", 400):
        put("k" * 1025)


@check
def odd_keys():
    for key in ("a b+c", "ü/ö", "../up", "//double", "/leading", "trailing/", "a\\b", "%41", "?query&a=b", "quo\"te<&>'", "tab\there", "\U0001f984", "k" * 1024):
        put(key, key.encode())
        assert get(key) == key.encode(), key
        assert key in [o["Key"] for o in s3.list_objects_v2(Bucket=BUCKET, Prefix=key).get("Contents", [])], key
        s3.delete_object(Bucket=BUCKET, Key=key)


@check
def ranges():
    body = bytes(i % 251 for i in range(1000))
    put("ranged", body)
    for asked, first, end in (("0-0", 0, 1), ("0-9", 0, 10), ("990-", 990, 1000), ("-10", 990, 1000), ("-5000", 0, 1000), ("500-99999", 500, 1000)):
        answer = s3.get_object(Bucket=BUCKET, Key="ranged", Range=f"bytes={asked}")
        assert answer["Body"].read() == body[first:end], asked
        assert answer["ContentRange"] == f"bytes {first}-{end - 1}/1000" and answer["ContentLength"] == end - first
        assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    for asked in ("1000-", "1000-1001", "-0"):
        with refused("InvalidRange", 416):
            get("ranged", Range=f"bytes={asked}")
    put("empty")
    with refused("InvalidRange", 416):
        get("empty", Range="bytes=0-")
    head = s3.head_object(Bucket=BUCKET, Key="ranged", Range="bytes=10-19")
    assert head["ContentLength"] == 10


@check
def conditional_reads():
    tag = put("conditional", b"v1")["ETag"]
    modified = s3.head_object(Bucket=BUCKET, Key="conditional")["LastModified"]
    before, after = modified - datetime.timedelta(hours=1), modified + datetime.timedelta(seconds=1)
    for good in ({"IfMatch": tag}, {"IfMatch": "*"}, {"IfNoneMatch": '"other"'}, {"IfModifiedSince": before}, {"IfUnmodifiedSince": after}):
        assert get("conditional", **good) == b"v1", good
    assert get("conditional", IfMatch=tag, IfUnmodifiedSince=before) == b"v1"
    for bad in ({"IfMatch": '"other"'}, {"IfUnmodifiedSince": before}):
        with refused("PreconditionFailed", 412):
            get("conditional", **bad)
    for same in ({"IfNoneMatch": tag}, {"IfNoneMatch": "*"}, {"IfModifiedSince": modified}):
        with refused("304", 304):
            get("conditional", **same)
        with refused("304", 304):
            s3.head_object(Bucket=BUCKET, Key="conditional", **same)


@check
def conditional_writes():
    s3.delete_object(Bucket=BUCKET, Key="once")
    tag = put("once", b"v1", IfNoneMatch="*")["ETag"]
    with refused("PreconditionFailed", 412):
        put("once", b"v2", IfNoneMatch="*")
    with refused("PreconditionFailed", 412):
        put("once", b"v2", IfMatch='"other"')
    tag = put("once", b"v2", IfMatch=tag)["ETag"]
    assert get("once") == b"v2"
    with refused("NoSuchKey", 404):
        put("never", b"v1", IfMatch=tag)
    with refused("PreconditionFailed", 412):
        s3.delete_object(Bucket=BUCKET, Key="once", IfMatch='"other"')
    assert get("once") == b"v2"
    s3.delete_object(Bucket=BUCKET, Key="once", IfMatch=tag)
    with refused("NoSuchKey"):
        get("once")
    for key, condition, code in (("once", {"IfNoneMatch": "*"}, None), ("once", {"IfNoneMatch": "*"}, "PreconditionFailed"), ("once", {"IfMatch": '"other"'}, "PreconditionFailed"), ("absent", {"IfMatch": '"other"'}, "NoSuchKey")):
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        part = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"p")["ETag"]
        finish = lambda: s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]}, **condition)
        if code is None:
            finish()
            continue
        with refused(code):
            finish()
        s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)


@check
def metadata_and_headers():
    put("described", b"x", ContentType="text/plain; charset=utf-8", CacheControl="no-cache", ContentDisposition='attachment; filename="a.txt"', ContentEncoding="gzip", ContentLanguage="de", Expires=datetime.datetime(2030, 1, 2), Metadata={"Camel-Case": "value", "empty": "", "spaces": "a  b"}, WebsiteRedirectLocation="/elsewhere", StorageClass="STANDARD_IA")
    for head in (s3.head_object(Bucket=BUCKET, Key="described"), s3.get_object(Bucket=BUCKET, Key="described")):
        assert head["ContentType"] == "text/plain; charset=utf-8"
        assert head["CacheControl"] == "no-cache" and head["ContentLanguage"] == "de" and head["ContentEncoding"] == "gzip"
        assert head["ContentDisposition"] == 'attachment; filename="a.txt"'
        assert head["ExpiresString"].endswith("2030 00:00:00 GMT"), head["ExpiresString"]
        assert head["Metadata"]["camel-case"] == "value", head["Metadata"]
        assert head["WebsiteRedirectLocation"] == "/elsewhere" and head["StorageClass"] == "STANDARD_IA"
    over = s3.get_object(Bucket=BUCKET, Key="described", ResponseContentType="a/b", ResponseCacheControl="c", ResponseContentDisposition="d", ResponseContentLanguage="e")
    assert (over["ContentType"], over["CacheControl"], over["ContentDisposition"], over["ContentLanguage"]) == ("a/b", "c", "d", "e")
    with refused("MetadataTooLarge", 400):
        put("described-too-much", b"x", Metadata={"m": "x" * 2100})
    with refused("InvalidStorageClass", 400):
        put("described-wrongly", b"x", StorageClass="GOLD")


@check
def copies():
    put("source", b"content", ContentType="text/plain", Metadata={"a": "1"}, Tagging="t=1")
    tag = quoted(md5(b"content"))
    source = {"Bucket": BUCKET, "Key": "source"}
    answer = s3.copy_object(Bucket=OTHER, Key="copy ü", CopySource=source)
    assert answer["CopyObjectResult"]["ETag"] == tag
    head = s3.head_object(Bucket=OTHER, Key="copy ü")
    assert (head["ContentType"], head["Metadata"]) == ("text/plain", {"a": "1"})
    assert s3.get_object_tagging(Bucket=OTHER, Key="copy ü")["TagSet"] == [{"Key": "t", "Value": "1"}]
    s3.copy_object(Bucket=OTHER, Key="copy ü", CopySource=source, MetadataDirective="REPLACE", Metadata={"b": "2"}, ContentType="a/b", TaggingDirective="REPLACE", Tagging="u=2")
    head = s3.head_object(Bucket=OTHER, Key="copy ü")
    assert (head["ContentType"], head["Metadata"]) == ("a/b", {"b": "2"})
    assert s3.get_object_tagging(Bucket=OTHER, Key="copy ü")["TagSet"] == [{"Key": "u", "Value": "2"}]
    assert get("copy ü", OTHER) == b"content"
    with refused("InvalidRequest", 400):
        s3.copy_object(Bucket=BUCKET, Key="source", CopySource=source)
    s3.copy_object(Bucket=BUCKET, Key="source", CopySource=source, MetadataDirective="REPLACE", Metadata={"c": "3"})
    assert s3.head_object(Bucket=BUCKET, Key="source")["Metadata"] == {"c": "3"} and get("source") == b"content"
    modified = s3.head_object(Bucket=BUCKET, Key="source")["LastModified"]
    hour = datetime.timedelta(hours=1)
    for good in ({"CopySourceIfMatch": tag}, {"CopySourceIfNoneMatch": '"other"'}, {"CopySourceIfModifiedSince": modified - hour}, {"CopySourceIfUnmodifiedSince": modified + hour}):
        s3.copy_object(Bucket=OTHER, Key="conditional", CopySource=source, **good)
    for bad in ({"CopySourceIfMatch": '"other"'}, {"CopySourceIfNoneMatch": tag}, {"CopySourceIfUnmodifiedSince": modified - hour}, {"CopySourceIfModifiedSince": modified}):
        with refused("PreconditionFailed", 412):
            s3.copy_object(Bucket=OTHER, Key="conditional", CopySource=source, **bad)
    with refused("NoSuchKey", 404):
        s3.copy_object(Bucket=OTHER, Key="x", CopySource={"Bucket": BUCKET, "Key": "no such key"})
    with refused("NoSuchBucket", 404):
        s3.copy_object(Bucket=OTHER, Key="x", CopySource={"Bucket": f"no-such-{RUN}", "Key": "k"})
    put("a+b %41ü", b"odd")
    s3.copy_object(Bucket=OTHER, Key="odd", CopySource={"Bucket": BUCKET, "Key": "a+b %41ü"})
    assert get("odd", OTHER) == b"odd"


def complete(key, upload, parts, **more):
    return s3.complete_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **more)


@check
def multipart():
    key = "parts/whole"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key, ContentType="a/b", Metadata={"m": "1"}, Tagging="t=1")["UploadId"]
    one, two, last = b"1" * PART, b"2" * PART, b"3" * 100
    tags = {}
    for number, body in ((7, last), (1, b"overwritten"), (1, one), (4, two)):
        tags[number] = s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=body)["ETag"]
    assert tags[1] == quoted(md5(one))
    listed = s3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload)
    assert [(p["PartNumber"], p["Size"]) for p in listed["Parts"]] == [(1, PART), (4, PART), (7, 100)]
    page = s3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload, MaxParts=2)
    assert page["IsTruncated"] and page["NextPartNumberMarker"] == 4
    rest = s3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload, PartNumberMarker=4)
    assert not rest["IsTruncated"] and [p["PartNumber"] for p in rest["Parts"]] == [7]
    parts = [{"PartNumber": n, "ETag": tags[n]} for n in (1, 4, 7)]
    with refused("InvalidPartOrder", 400):
        complete(key, upload, parts[::-1])
    with refused("InvalidPart", 400):
        complete(key, upload, [{"PartNumber": 1, "ETag": quoted("0" * 32)}])
    with refused("InvalidPart", 400):
        complete(key, upload, parts[:2] + [{"PartNumber": 9, "ETag": tags[7]}])
    with refused("NoSuchKey"):
        get(key)
    answer = complete(key, upload, parts)
    whole = hashlib.md5(b"".join(hashlib.md5(b).digest() for b in (one, two, last))).hexdigest() + "-3"
    assert answer["ETag"] == quoted(whole) and answer["Key"] == key
    assert complete(key, upload, parts)["ETag"] == quoted(whole), "a retry of a completion is answered as the first"
    assert get(key) == one + two + last
    head = s3.head_object(Bucket=BUCKET, Key=key, PartNumber=1)
    assert (head["PartsCount"], head["ContentLength"]) == (3, PART)
    assert get(key, PartNumber=7) == last
    head = s3.head_object(Bucket=BUCKET, Key=key)
    assert (head["ContentType"], head["Metadata"], head["ETag"]) == ("a/b", {"m": "1"}, quoted(whole))
    assert get(key, Range=f"bytes={PART - 1}-{PART}") == b"12"
    with refused("NoSuchUpload", 404):
        s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"x")
    with refused("NoSuchUpload", 404):
        s3.list_parts(Bucket=BUCKET, Key=key, UploadId="no-such-upload")


@check
def multipart_refusals():
    key = "parts/small"
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    tags = [s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=n, Body=b"x")["ETag"] for n in (1, 2)]
    with refused("EntityTooSmall", 400):
        complete(key, upload, [{"PartNumber": n, "ETag": tags[n - 1]} for n in (1, 2)])
    with refused("MalformedXML", 400):
        complete(key, upload, [])
    for number in (0, 10_001):
        with refused("InvalidArgument", 400):
            s3.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, Body=b"x")
    listed = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="parts/")["Uploads"]
    assert [(u["Key"], u["UploadId"]) for u in listed] == [(key, upload)]
    others = [s3.create_multipart_upload(Bucket=BUCKET, Key=f"uploads/{k}")["UploadId"] for k in ("a", "a", "b", "c/d")]
    seen, more = [], {}
    while True:
        page = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="uploads/", MaxUploads=1, **more)
        seen += [u["UploadId"] for u in page.get("Uploads", [])]
        if not page["IsTruncated"]:
            break
        more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
    assert sorted(seen) == sorted(others)
    folded = s3.list_multipart_uploads(Bucket=BUCKET, Prefix="uploads/", Delimiter="/")
    assert [p["Prefix"] for p in folded["CommonPrefixes"]] == ["uploads/c/"]
    for name, one in zip(("a", "a", "b", "c/d"), others):
        s3.abort_multipart_upload(Bucket=BUCKET, Key=f"uploads/{name}", UploadId=one)
    s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
    with refused("NoSuchUpload", 404):
        s3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)
    assert not s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads")


@check
def part_copies():
    body = bytes(i % 253 for i in range(6 << 20))
    put("parts/source", body)
    key, source = "parts/copied", {"Bucket": BUCKET, "Key": "parts/source"}
    upload = s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    copy = lambda number, **more: s3.upload_part_copy(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=number, CopySource=source, **more)["CopyPartResult"]["ETag"]
    one, two = copy(1), copy(2, CopySourceRange="bytes=10-1009")
    assert (one, two) == (quoted(md5(body)), quoted(md5(body[10:1010])))
    for bad, code in (("bytes=0-99999999", "InvalidRange"), ("bytes=-5", "InvalidArgument"), ("0-5", "InvalidArgument"), ("bytes=9-5", "InvalidArgument")):
        with refused(code):
            copy(3, CopySourceRange=bad)
    with refused("PreconditionFailed", 412):
        copy(3, CopySourceIfMatch='"other"')
    complete(key, upload, [{"PartNumber": 1, "ETag": one}, {"PartNumber": 2, "ETag": two}])
    assert get(key) == body + body[10:1010]


@check
def delete_many():
    for i in range(5):
        put(f"many/{i}", b"x")
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": f"many/{i}"} for i in (0, 1, 9)]})
    assert sorted(d["Key"] for d in answer["Deleted"]) == ["many/0", "many/1", "many/9"] and "Errors" not in answer
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Quiet": True, "Objects": [{"Key": "many/2"}]})
    assert "Deleted" not in answer
    answer = s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "many/3", "ETag": '"other"'}, {"Key": "k" * 1025}, {"Key": "many/4"}]})
    assert [d["Key"] for d in answer["Deleted"]] == ["many/4"]
    assert {e["Key"]: e["Code"] for e in answer["Errors"]} == {"many/3": "PreconditionFailed", "k" * 1025: "KeyTooLongError"}
    with refused("MalformedXML", 400):
        s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": str(i)} for i in range(1001)]})


@check
def listings():
    keys = ["a", "b/1", "b/2", "b/c/3", "d e+f", "ü"]
    for key in keys:
        put(f"list/{key}", key.encode())
    names = lambda page: [o["Key"].removeprefix("list/") for o in page.get("Contents", [])]
    folds = lambda page: [p["Prefix"].removeprefix("list/") for p in page.get("CommonPrefixes", [])]
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/")
    assert names(page) == keys and page["KeyCount"] == 6 and not page["IsTruncated"]
    first = page["Contents"][0]
    assert first["Size"] == 1 and first["ETag"] == quoted(md5(b"a")) and first["StorageClass"] == "STANDARD" and "Owner" not in first
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", FetchOwner=True)["Contents"][0]["Owner"]["ID"]
    page = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", Delimiter="/")
    assert names(page) == ["a", "d e+f", "ü"] and folds(page) == ["b/"] and page["KeyCount"] == 4
    assert names(s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", StartAfter="list/b/2")) == ["b/c/3", "d e+f", "ü"]
    assert names(s3.list_objects_v2(Bucket=BUCKET, Prefix="list/b/", Delimiter="/")) == ["b/1", "b/2"]
    for size in (1, 2, 5):
        seen, more = [], {}
        while True:
            page = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", Delimiter="/", MaxKeys=size, **more)
            seen += names(page) + folds(page)
            assert page["KeyCount"] <= size
            if not page["IsTruncated"]:
                break
            more = {"ContinuationToken": page["NextContinuationToken"]}
        assert sorted(seen) == ["a", "b/", "d e+f", "ü"], seen
    encoded = s3.list_objects_v2(Bucket=BUCKET, Prefix="list/d", EncodingType="url")
    assert encoded["EncodingType"] == "url" and urllib.parse.unquote(encoded["Contents"][0]["Key"]) == "list/d e+f"
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="list/", MaxKeys=0)["KeyCount"] == 0
    with refused("InvalidArgument", 400):
        s3.list_objects_v2(Bucket=BUCKET, ContinuationToken="!!")
    page = s3.list_objects(Bucket=BUCKET, Prefix="list/", MaxKeys=2)
    assert names(page) == ["a", "b/1"] and page["IsTruncated"] and page["Contents"][0]["Owner"]["ID"]
    page = s3.list_objects(Bucket=BUCKET, Prefix="list/", Marker="list/b/1")
    assert names(page) == keys[2:]
    page = s3.list_objects(Bucket=BUCKET, Prefix="list/", Delimiter="/", MaxKeys=2)
    assert page["NextMarker"] == "list/b/" and folds(page) == ["b/"]
    page = s3.list_objects(Bucket=BUCKET, Prefix="list/", Delimiter="/", Marker=page["NextMarker"])
    assert names(page) == ["d e+f", "ü"] and not folds(page)


@check
def versioning():
    assert "Status" not in s3.get_bucket_versioning(Bucket=VERSIONED)
    old = put("v", b"null", VERSIONED)
    assert "VersionId" not in old
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=VERSIONED)["Status"] == "Enabled"
    ids = [put("v", f"v{i}".encode(), VERSIONED)["VersionId"] for i in range(3)]
    assert len(set(ids)) == 3
    assert get("v", VERSIONED) == b"v2"
    for i, version in enumerate(ids):
        assert get("v", VERSIONED, VersionId=version) == f"v{i}".encode()
        assert s3.head_object(Bucket=VERSIONED, Key="v", VersionId=version)["VersionId"] == version
    assert get("v", VERSIONED, VersionId="null") == b"null"
    marker = s3.delete_object(Bucket=VERSIONED, Key="v")
    assert marker["DeleteMarker"] and marker["VersionId"]
    with refused("NoSuchKey", 404):
        get("v", VERSIONED)
    with refused("MethodNotAllowed", 405):
        get("v", VERSIONED, VersionId=marker["VersionId"])
    assert get("v", VERSIONED, VersionId=ids[2]) == b"v2"
    assert not s3.list_objects_v2(Bucket=VERSIONED).get("Contents")
    listed = s3.list_object_versions(Bucket=VERSIONED)
    assert [v["VersionId"] for v in listed["Versions"]] == ids[::-1] + ["null"]
    assert [(m["VersionId"], m["IsLatest"]) for m in listed["DeleteMarkers"]] == [(marker["VersionId"], True)]
    assert not any(v["IsLatest"] for v in listed["Versions"])
    put("w", b"other", VERSIONED)
    seen, more = [], {}
    while True:
        page = s3.list_object_versions(Bucket=VERSIONED, MaxKeys=2, **more)
        seen += [(v["Key"], v["VersionId"]) for v in page.get("Versions", []) + page.get("DeleteMarkers", [])]
        if not page["IsTruncated"]:
            break
        more = {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
    assert len(seen) == len(set(seen)) == 6
    undone = s3.delete_object(Bucket=VERSIONED, Key="v", VersionId=marker["VersionId"])
    assert undone["DeleteMarker"] and get("v", VERSIONED) == b"v2"
    gone = s3.delete_object(Bucket=VERSIONED, Key="v", VersionId=ids[2])
    assert gone["VersionId"] == ids[2] and get("v", VERSIONED) == b"v1"
    with refused("NoSuchVersion", 404):
        get("v", VERSIONED, VersionId=ids[2])
    copied = s3.copy_object(Bucket=VERSIONED, Key="v", CopySource={"Bucket": VERSIONED, "Key": "v", "VersionId": ids[0]})
    assert copied["CopySourceVersionId"] == ids[0] and copied["VersionId"] and get("v", VERSIONED) == b"v0"
    upload = s3.create_multipart_upload(Bucket=VERSIONED, Key="v")["UploadId"]
    part = s3.upload_part(Bucket=VERSIONED, Key="v", UploadId=upload, PartNumber=1, Body=b"mp")["ETag"]
    done = s3.complete_multipart_upload(Bucket=VERSIONED, Key="v", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part}]})
    assert done["VersionId"] and get("v", VERSIONED, VersionId=done["VersionId"]) == b"mp"


@check
def versioning_suspended():
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Suspended"})
    count = lambda: len(s3.list_object_versions(Bucket=VERSIONED, Prefix="v").get("Versions", []))
    before = count()
    put("v", b"suspended", VERSIONED)
    put("v", b"suspended again", VERSIONED)
    assert count() == before, "the null version is overwritten, the others stay"
    assert get("v", VERSIONED, VersionId="null") == b"suspended again"
    marker = s3.delete_object(Bucket=VERSIONED, Key="v")
    assert marker["DeleteMarker"] and marker["VersionId"] == "null" and count() == before - 1
    s3.delete_object(Bucket=VERSIONED, Key="v", VersionId="null")
    assert get("v", VERSIONED) == b"mp"
    with refused("BucketNotEmpty", 409):
        s3.delete_bucket(Bucket=VERSIONED)


@check
def attributes():
    put("attributes", b"hello", ChecksumAlgorithm="SHA256")
    found = s3.get_object_attributes(Bucket=BUCKET, Key="attributes", ObjectAttributes=["ETag", "ObjectSize", "StorageClass", "Checksum", "ObjectParts"])
    assert (found["ETag"].strip('"'), found["ObjectSize"], found["StorageClass"]) == (md5(b"hello"), 5, "STANDARD")
    assert found["Checksum"]["ChecksumSHA256"] == base64.b64encode(hashlib.sha256(b"hello").digest()).decode()
    found = s3.get_object_attributes(Bucket=BUCKET, Key="parts/whole", ObjectAttributes=["ObjectParts", "ObjectSize"])
    assert found["ObjectParts"]["TotalPartsCount"] == 3 and found["ObjectSize"] == 2 * PART + 100 and "ETag" not in found
    with refused("NoSuchKey", 404):
        s3.get_object_attributes(Bucket=BUCKET, Key="no-such-key", ObjectAttributes=["ETag"])


@check
def tagging():
    put("tagged", b"x", Tagging="a=1&b=two%20words")
    tags = lambda **more: {t["Key"]: t["Value"] for t in s3.get_object_tagging(Bucket=BUCKET, Key="tagged", **more)["TagSet"]}
    assert tags() == {"a": "1", "b": "two words"}
    assert s3.get_object(Bucket=BUCKET, Key="tagged")["TagCount"] == 2
    s3.put_object_tagging(Bucket=BUCKET, Key="tagged", Tagging={"TagSet": [{"Key": "c", "Value": "<&>"}]})
    assert tags() == {"c": "<&>"}
    s3.delete_object_tagging(Bucket=BUCKET, Key="tagged")
    assert tags() == {}
    many = [{"Key": str(i), "Value": "v"} for i in range(11)]
    for bad in (many, [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}], [{"Key": "k" * 129, "Value": "v"}], [{"Key": "k", "Value": "v" * 257}]):
        try:
            s3.put_object_tagging(Bucket=BUCKET, Key="tagged", Tagging={"TagSet": bad})
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] in ("InvalidTag", "BadRequest")
        else:
            raise AssertionError("these tags are too many or too long")
    with refused("NoSuchKey", 404):
        s3.get_object_tagging(Bucket=BUCKET, Key="no-such-key")
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=BUCKET)
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": [{"Key": "team", "Value": "x"}]})
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == [{"Key": "team", "Value": "x"}]
    s3.delete_bucket_tagging(Bucket=BUCKET)
    with refused("NoSuchTagSet", 404):
        s3.get_bucket_tagging(Bucket=BUCKET)


# Check values of "123456789", from the catalogue of CRCs and the standards of the hashes.
CHECKSUMS = {
    "CRC32": bytes.fromhex("cbf43926"),
    "CRC32C": bytes.fromhex("e3069283"),
    "CRC64NVME": bytes.fromhex("ae8b14860a799888"),
    "SHA1": hashlib.sha1(b"123456789").digest(),
    "SHA256": hashlib.sha256(b"123456789").digest(),
}


@check
def checksums():
    for algorithm, value in CHECKSUMS.items():
        text, field = base64.b64encode(value).decode(), f"Checksum{algorithm}"
        answer = put("sum", b"123456789", **{field: text})
        assert answer[field] == text, algorithm
        read = s3.get_object(Bucket=BUCKET, Key="sum", ChecksumMode="ENABLED")
        assert read[field] == text and read["Body"].read() == b"123456789" and read["ChecksumType"] == "FULL_OBJECT"
        head = s3.head_object(Bucket=BUCKET, Key="sum", ChecksumMode="ENABLED")
        assert head[field] == text
        assert field not in s3.head_object(Bucket=BUCKET, Key="sum")
        wrong = base64.b64encode(bytes(len(value))).decode()
        with refused("BadDigest", 400):
            put("sum", b"123456789", **{field: wrong})
        with refused("InvalidRequest", 400):
            put("sum", b"123456789", **{field: "AAAA"})
        assert get("sum") == b"123456789"
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        put("sum", b"123456789", ChecksumAlgorithm=algorithm)
        head = s3.head_object(Bucket=BUCKET, Key="sum", ChecksumMode="ENABLED")
        assert head[f"Checksum{algorithm}"] == base64.b64encode(CHECKSUMS[algorithm]).decode()
    with refused("BadDigest", 400):
        put("sum", b"123456789", ContentMD5=base64.b64encode(bytes(16)).decode())
    with refused("InvalidDigest", 400):
        put("sum", b"123456789", ContentMD5="AAAA")


@check
def checksums_of_parts():
    one, two = b"1" * PART, b"2" * 100
    for algorithm, kind in (("CRC32", "FULL_OBJECT"), ("CRC32", "COMPOSITE"), ("SHA256", "COMPOSITE")):
        upload = s3.create_multipart_upload(Bucket=BUCKET, Key="sums", ChecksumAlgorithm=algorithm, ChecksumType=kind)["UploadId"]
        field, parts = f"Checksum{algorithm}", []
        for number, body in ((1, one), (2, two)):
            answer = s3.upload_part(Bucket=BUCKET, Key="sums", UploadId=upload, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
            parts.append({"PartNumber": number, "ETag": answer["ETag"], field: answer[field]})
        done = complete("sums", upload, parts)
        if kind == "FULL_OBJECT":
            assert done[field] == base64.b64encode(zlib.crc32(one + two).to_bytes(4, "big")).decode()
        else:
            assert done[field].endswith("-2"), done[field]
        assert done["ChecksumType"] == kind
        with refused("InvalidPart", 400):
            upload = s3.create_multipart_upload(Bucket=BUCKET, Key="sums", ChecksumAlgorithm=algorithm)["UploadId"]
            answer = s3.upload_part(Bucket=BUCKET, Key="sums", UploadId=upload, PartNumber=1, Body=two, ChecksumAlgorithm=algorithm)
            complete("sums", upload, [{"PartNumber": 1, "ETag": answer["ETag"], field: parts[0][field]}])
        s3.abort_multipart_upload(Bucket=BUCKET, Key="sums", UploadId=upload)
    with refused("InvalidRequest", 400):
        s3.create_multipart_upload(Bucket=BUCKET, Key="sums", ChecksumAlgorithm="SHA1", ChecksumType="FULL_OBJECT")


def fetch(url, method="GET", data=None, headers=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, method=method, headers=headers or {})) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@check
def presigned():
    put("presigned", b"content")
    url = lambda operation, expires=60, **more: s3.generate_presigned_url(operation, Params={"Bucket": BUCKET, "Key": "presigned", **more}, ExpiresIn=expires)
    assert fetch(url("get_object"))[:2] == (200, b"content")
    assert fetch(url("get_object"), headers={"Range": "bytes=0-2"})[:2] == (206, b"con")
    assert fetch(url("get_object", ResponseContentType="a/b"))[2]["Content-Type"] == "a/b"
    assert fetch(url("head_object"), "HEAD")[0] == 200
    assert fetch(url("put_object"), "PUT", b"new")[0] == 200 and get("presigned") == b"new"
    assert fetch(url("get_object"), "DELETE")[0] == 403
    status, body, _ = fetch(url("get_object", expires=604_801))
    assert status == 400 and b"AuthorizationQueryParametersError" in body
    short = url("get_object", expires=1)
    time.sleep(2.1)
    status, body, _ = fetch(short)
    assert status == 403 and b"AccessDenied" in body
    status, body, headers = fetch(f"{ENDPOINT}/{BUCKET}/presigned")
    assert status == 403 and b"AccessDenied" in body and headers["x-amz-request-id"]
    assert fetch(url("delete_object"), "DELETE")[0] == 204


@check
def post_forms():
    def post(fields, body, target=f"{ENDPOINT}/{BUCKET}"):
        boundary = uuid.uuid4().hex
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="name.txt"\r\nContent-Type: text/plain\r\n\r\n')
        data = "".join(parts).encode() + body + f"\r\n--{boundary}--\r\n".encode()
        return fetch(target, "POST", data, {"Content-Type": f"multipart/form-data; boundary={boundary}"})

    sign = lambda key, fields=None, conditions=None: s3.generate_presigned_post(BUCKET, key, Fields=fields, Conditions=conditions, ExpiresIn=60)["fields"]
    assert post(sign("form/${filename}"), b"from a form")[0] == 204
    assert get("form/name.txt") == b"from a form"
    more = {"success_action_status": "201", "Content-Type": "text/x", "x-amz-meta-a": "1"}
    status, body, headers = post(sign("form/created", more, [{k: v} for k, v in more.items()]), b"x")
    assert status == 201 and b"<PostResponse>" in body and md5(b"x").encode() in body
    head = s3.head_object(Bucket=BUCKET, Key="form/created")
    assert (head["ContentType"], head["Metadata"]) == ("text/x", {"a": "1"})
    status, body, _ = post(sign("form/large", None, [["content-length-range", 0, 3]]), b"four")
    assert status == 400 and b"EntityTooLarge" in body
    status, body, _ = post(sign("form/small", None, [["content-length-range", 5, 9]]), b"four")
    assert status == 400 and b"EntityTooSmall" in body
    status, body, _ = post({**sign("form/extra"), "x-amz-meta-extra": "1"}, b"x")
    assert status == 403 and b"AccessDenied" in body
    status, body, _ = post(sign("form/elsewhere"), b"x", f"{ENDPOINT}/{OTHER}")
    assert status == 403 and b"AccessDenied" in body
    keys = [o["Key"] for o in s3.list_objects_v2(Bucket=BUCKET, Prefix="form/")["Contents"]]
    assert keys == ["form/created", "form/name.txt"]


@check
def not_implemented():
    put("refused", b"x")
    document = json.dumps({"Version": "2012-10-17", "Statement": []})
    for name, call in {
        "policy": lambda: s3.put_bucket_policy(Bucket=BUCKET, Policy=document),
        "cors": lambda: s3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [{"AllowedMethods": ["GET"], "AllowedOrigins": ["*"]}]}),
        "lifecycle": lambda: s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}),
        "website": lambda: s3.put_bucket_website(Bucket=BUCKET, WebsiteConfiguration={"IndexDocument": {"Suffix": "i"}}),
        "replication": lambda: s3.put_bucket_replication(Bucket=BUCKET, ReplicationConfiguration={"Role": "r", "Rules": [{"Status": "Enabled", "Prefix": "", "Destination": {"Bucket": "arn:aws:s3:::b"}}]}),
        "encryption": lambda: s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration={"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]}),
        "an encrypted object": lambda: put("refused", b"y", ServerSideEncryption="AES256"),
        "a public object": lambda: put("refused", b"y", ACL="public-read"),
        "a locked object": lambda: put("refused", b"y", ObjectLockLegalHoldStatus="ON"),
        "legal hold": lambda: s3.put_object_legal_hold(Bucket=BUCKET, Key="refused", LegalHold={"Status": "ON"}),
        "retention": lambda: s3.put_object_retention(Bucket=BUCKET, Key="refused", Retention={"Mode": "GOVERNANCE", "RetainUntilDate": datetime.datetime(2099, 1, 1)}),
        "restore": lambda: s3.restore_object(Bucket=BUCKET, Key="refused", RestoreRequest={"Days": 1}),
        "accelerate": lambda: s3.put_bucket_accelerate_configuration(Bucket=BUCKET, AccelerateConfiguration={"Status": "Enabled"}),
    }.items():
        try:
            call()
        except botocore.exceptions.ClientError as error:
            assert error.response["Error"]["Code"] == "NotImplemented", f"{name}: {error}"
        else:
            raise AssertionError(f"{name} is not implemented, and went well")
    assert get("refused") == b"x"
    with refused("NoSuchLifecycleConfiguration", 404):
        s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)
    with refused("NoSuchBucketPolicy", 404):
        s3.get_bucket_policy(Bucket=BUCKET)
    grants = s3.get_object_acl(Bucket=BUCKET, Key="refused")["Grants"]
    assert [g["Permission"] for g in grants] == ["FULL_CONTROL"]


@check
def clean_up():
    for bucket in (BUCKET, VERSIONED, OTHER):
        while True:
            page = s3.list_object_versions(Bucket=bucket)
            found = page.get("Versions", []) + page.get("DeleteMarkers", [])
            if found:
                objects = [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in found]
                assert "Errors" not in s3.delete_objects(Bucket=bucket, Delete={"Quiet": True, "Objects": objects})
            if not page["IsTruncated"]:
                break
        s3.delete_bucket(Bucket=bucket)
        with refused("404", 404):
            s3.head_bucket(Bucket=bucket)


failed = []
for function in CHECKS:
    started = time.monotonic()
    try:
        function()
    except Exception:
        failed.append(function.__name__)
        traceback.print_exc()
    outcome = "FAILED" if function.__name__ in failed else "ok"
    print(f"{function.__name__}: {outcome}, {time.monotonic() - started:.1f} s", flush=True)
sys.exit(f"failed: {', '.join(failed)}" if failed else 0)
