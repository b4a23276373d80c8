"""Tiny data sets in the format of TFDS 4.9.10, for the tests."""

import io
import json
from pathlib import Path


def write_tfds(root: Path, content: dict, shards=((3, 0), (4, 1, 2)), name="cifar10") -> Path:
    """A directory as TFDS 4.9.10 writes it, the training examples in shards and in that order."""
    version = root / name / "3.0.2"
    version.mkdir(parents=True)
    splits = {"train": shards, "test": ([2, 0, 1],)}
    for split, files in splits.items():
        for number, indices in enumerate(files):
            place = f"{number:05d}-of-{len(files):05d}"
            records = [tfds_example(content, split, index) for index in indices]
            _write_array_record(version / f"{name}-{split}.array_record-{place}", records)
    info = {
        "fileFormat": "array_record",
        "moduleName": "tensorflow_datasets.image_classification.cifar",
        "name": name,
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(len(indices)) for indices in files],
            }
            for split, files in splits.items()
        ],
        "version": "3.0.2",
    }
    (version / "dataset_info.json").write_text(json.dumps(info))
    (version / "features.json").write_text(json.dumps(_features(content["train_images"].shape[2:])))
    return version


def _features(shape: tuple[int, int]) -> dict:
    prefix = "tensorflow_datasets.core.features"
    size = [str(shape[0]), str(shape[1]), "3"]
    return {
        "pythonClassName": f"{prefix}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "id": {"pythonClassName": f"{prefix}.text_feature.Text", "text": {}},
                "image": {
                    "pythonClassName": f"{prefix}.image_feature.Image",
                    "image": {"dtype": "uint8", "shape": {"dimensions": size}},
                },
                "label": {
                    "pythonClassName": f"{prefix}.class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": "10"},
                },
            }
        },
    }


def tfds_example(content: dict, split: str, index: int) -> bytes:
    from PIL import Image
    from tensorflow_datasets.proto import tf_example_pb2

    png = io.BytesIO()
    Image.fromarray(content[f"{split}_images"][index].transpose(1, 2, 0)).save(png, "PNG")
    example = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
    feature = example.features.feature
    feature["id"].bytes_list.value.append(f"{split}_{index:05d}".encode())
    feature["image"].bytes_list.value.append(png.getvalue())
    feature["label"].int64_list.value.append(int(content[f"{split}_labels"][index]))
    return example.SerializeToString()


def _write_array_record(path: Path, records: list[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
