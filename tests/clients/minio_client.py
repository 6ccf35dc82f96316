"""minio-py: streams of unknown size, presigned forms and URLs, tags, versions, bulk delete."""
import datetime
import io
import os
import urllib.request

from minio import Minio
from minio.commonconfig import ENABLED, CopySource, Tags
from minio.datatypes import PostPolicy
from minio.deleteobjects import DeleteObject
from minio.versioningconfig import VersioningConfig

bucket = os.environ["BUCKET"]
client = Minio(
    endpoint=os.environ["HOST_PORT"],
    access_key=os.environ["AWS_ACCESS_KEY_ID"],
    secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    secure=False,
    region="us-east-1",
)
client.make_bucket(bucket_name=bucket)
assert client.bucket_exists(bucket_name=bucket)

data = os.urandom(12_345_678)
client.put_object(bucket_name=bucket, object_name="unknown size", data=io.BytesIO(data), length=-1, part_size=5 << 20)
assert client.get_object(bucket_name=bucket, object_name="unknown size").read() == data
part = client.get_object(bucket_name=bucket, object_name="unknown size", offset=7_000_000, length=1000).read()
assert part == data[7_000_000:7_001_000]

client.put_object(bucket_name=bucket, object_name="small", data=io.BytesIO(b"x"), length=1, metadata={"colour": "blue"})
assert client.stat_object(bucket_name=bucket, object_name="small").metadata["x-amz-meta-colour"] == "blue"
client.copy_object(bucket_name=bucket, object_name="copied", source=CopySource(bucket, "small"))

tags = Tags.new_object_tags()
tags["project"] = "holdfast"
client.set_object_tags(bucket_name=bucket, object_name="small", tags=tags)
assert client.get_object_tags(bucket_name=bucket, object_name="small")["project"] == "holdfast"

policy = PostPolicy(bucket, datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=5))
policy.add_starts_with_condition("key", "form/")
policy.add_content_length_range_condition(1, 1 << 20)
form = client.presigned_post_policy(policy)
form["key"] = "form/one"
boundary = "----holdfast-boundary"
body = b"".join(
    f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in form.items()
)
body += f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'.encode()
body += b"from a form" + f"\r\n--{boundary}--\r\n".encode()
request = urllib.request.Request(
    f"{os.environ['ENDPOINT']}/{bucket}", data=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
)
assert urllib.request.urlopen(request).status == 204
assert client.get_object(bucket_name=bucket, object_name="form/one").read() == b"from a form"

url = client.presigned_get_object(bucket_name=bucket, object_name="small")
assert urllib.request.urlopen(url).read() == b"x"

client.set_bucket_versioning(bucket_name=bucket, config=VersioningConfig(ENABLED))
first = client.put_object(bucket_name=bucket, object_name="v", data=io.BytesIO(b"1"), length=1).version_id
second = client.put_object(bucket_name=bucket, object_name="v", data=io.BytesIO(b"2"), length=1).version_id
assert first and second and first != second
assert client.get_object(bucket_name=bucket, object_name="v", version_id=first).read() == b"1"

versions = list(client.list_objects(bucket_name=bucket, recursive=True, include_version=True))
errors = list(
    client.remove_objects(
        bucket_name=bucket, delete_object_list=[DeleteObject(o.object_name, o.version_id) for o in versions]
    )
)
assert not errors, errors
client.remove_bucket(bucket_name=bucket)
assert not client.bucket_exists(bucket_name=bucket)
