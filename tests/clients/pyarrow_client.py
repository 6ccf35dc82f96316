"""pyarrow (AWS C++ SDK): Parquet through streaming uploads with checksum trailers, listing, deletion."""
import os

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

bucket = os.environ["BUCKET"]
s3 = fs.S3FileSystem(
    endpoint_override=os.environ["HOST_PORT"],
    scheme="http",
    access_key=os.environ["AWS_ACCESS_KEY_ID"],
    secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    region="us-east-1",
    allow_bucket_creation=True,
    allow_bucket_deletion=True,
)
s3.create_dir(bucket)
table = pa.table({"x": list(range(1_000_000)), "y": [str(i) for i in range(1_000_000)]})
pq.write_table(table, f"{bucket}/t/x.parquet", filesystem=s3, row_group_size=100_000)
assert pq.read_table(f"{bucket}/t/x.parquet", filesystem=s3).equals(table)
assert pq.ParquetFile(f"{bucket}/t/x.parquet", filesystem=s3).read_row_group(5).num_rows == 100_000
with s3.open_output_stream(f"{bucket}/raw") as out:
    for i in range(30):
        out.write(bytes([i]) * 1_000_000)
with s3.open_input_file(f"{bucket}/raw") as source:
    source.seek(17_500_000)
    assert source.read(10) == bytes([17]) * 10
names = {f.path for f in s3.get_file_info(fs.FileSelector(bucket, recursive=True)) if f.is_file}
assert names == {f"{bucket}/t/x.parquet", f"{bucket}/raw"}, names
s3.delete_dir_contents(bucket)
s3.delete_dir(bucket)
