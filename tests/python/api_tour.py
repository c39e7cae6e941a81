#!/usr/bin/env python3
"""Do with the API what docs/api.md says, and check that all of it is so.

    api_tour.py ADDRESS PHOTOS [--token TOKEN]

ADDRESS is host:port of a coordinator with a worker, PHOTOS a folder of photos with a folder for each class. The script
uploads the photos, makes a dataset, a model, an evaluation and predictions of them, and compares every document with its
schema in docs/schemas and every Parquet file with its table in docs/api.md. Then it is refused in every way. It prints
one line for each prediction; what differs from the page ends it with 1 and one line.
"""

import argparse
import json
import pathlib
import re
import sys
import uuid

import grpc
import jsonschema

from sortinghat_api import Client, Refused

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs"


class Mismatch(Exception):
    """The coordinator answered something else than the page says."""


def expect(condition, what):
    if not condition:
        raise Mismatch(what)


def expect_document(document):
    """The document is as its schema says."""
    name = document["format"].removeprefix("sortinghat.").removesuffix("/1")
    expect_schema(name, document)


def expect_schema(name, document):
    schema = json.loads((DOCS / "schemas" / f"{name}.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    faults = [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(document)]
    expect(not faults, f"a document fits docs/schemas/{name}.json: {faults[:3]}")


def expect_columns(heading, schema):
    """The columns are those of the table below this heading of docs/api.md."""
    section = (DOCS / "api.md").read_text().split(f"\n### {heading}\n")[1].split("\n#")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(.+?)` \| (yes|no) \|", section, re.MULTILINE)
    found = [(field.name, str(field.type), "yes" if field.nullable else "no") for field in schema]
    expect(rows == found, f"the table of {heading} has these columns: {found}")


def make_all(client, photos):
    """The way from photos to predictions; returns the upload and the rows."""
    files = {str(path.relative_to(photos)): path for path in sorted(photos.rglob("*")) if path.is_file()}
    source = client.upload(files)
    ingest = client.submit({"ingest": {"dataset_name": "shapes", "source": source}})
    training = {"dataset": f"job:{ingest.id}", "weights": "none", "epochs": 1, "batch_size": 4, "image_size_px": 32}
    finetune = client.submit({"finetune": training})
    evaluate = client.submit({"evaluate": {"model": f"job:{finetune.id}"}})
    classify = client.submit({"classify": {"model": f"job:{finetune.id}", "source": source, "top_k": 2}})
    jobs = [client.follow(job.id) for job in (ingest, finetune, evaluate, classify)]
    expect([job.output.name for job in jobs] == ["shapes@1", "shapes/1", "", ""], "datasets and models have names")
    dataset, model, evaluation, predictions = (client.document(job.output.manifest) for job in jobs)
    for document in (client.document(source), dataset, model, evaluation, predictions):
        expect_document(document)

    shards = client.table(dataset["shards"])
    expect_columns("Datasets", shards.schema)
    expect(shards.num_rows == len(files), "the dataset has a row for each photo")
    expect(client.part(evaluation["report"]).startswith(b"<!"), "the report is an HTML page")
    header = client.part(evaluation["predictions"]).decode().splitlines()[0].split(",")
    expect(header == ["path", "digest", "label", "predicted", "loss", *evaluation["classes"]], f"the columns are {header}")
    table = client.table(predictions["parts"])
    expect_columns("Predictions", table.schema)
    rows = table.to_pylist()
    expect(list(client.predictions(jobs[3].id)) == rows, "a watch of the predictions has the same rows")
    expect([row["path"] for row in rows] == list(files), "there is a row for each file, in the order of the upload")
    expect(all(len(row["top"]) == 2 and row["top"][0]["class"] == row["predicted"] for row in rows), "the top two are there")
    return source, rows


def expect_rejections(client, photos):
    """A file that cannot be read is a rejection in a dataset, and an error beside the other rows in predictions."""
    good = next(path for path in sorted(photos.rglob("*.png")))
    references = {f"{path.parent.name}/{path.name}": client.upload_object(path.read_bytes()) for path in photos.rglob("*.png")}
    references["red/broken.png"] = client.upload_object(good.read_bytes()[:100])
    source = client.upload_manifest(references)
    ingest = client.follow(client.submit({"ingest": {"dataset_name": "broken", "source": source}}).id)
    rejections = client.part(client.document(ingest.output.manifest)["rejections"]).decode().splitlines()
    expect_schema("rejection", json.loads(rejections[0]))
    expect(json.loads(rejections[0])["path"] == "red/broken.png", "the rejection names the file")
    classify = client.follow(client.submit({"classify": {"model": "shapes", "source": source}}).id)
    rows = client.table(client.document(classify.output.manifest)["parts"]).to_pylist()
    broken = next(row for row in rows if row["path"] == "red/broken.png")
    expect(broken["error"] and broken["predicted"] is None and broken["top"] == [], f"an error is a row: {broken}")


def expect_refusal(call, code, reason, fields=(), what=""):
    """The call is refused with these details; returns the refusal."""
    try:
        call()
    except Refused as refused:
        got = (refused.code, refused.reason, refused.domain, [field for field, _ in refused.violations])
        expect(got == (code, reason, "sortinghat", list(fields)), f"{reason} for {fields}, not {got}: {refused.message}")
        expect(refused.message == refused.failure.message, "the failure has the same sentence")
        expect("`hat" not in refused.message, f"no command is named: {refused.message}")
        return refused
    raise Mismatch(f"{what or reason} is refused")


def refuse_all(client, source):
    """Every kind of refusal, read by Python's own library."""
    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    submit = lambda spec, key=None: lambda: client.submit(spec, key)
    ingest = lambda name, of=source: {"ingest": {"dataset_name": name, "source": of}}
    expect_refusal(submit(ingest("Not A Name")), invalid, "INVALID_ARGUMENT", ["ingest.dataset_name"])
    expect_refusal(submit(ingest("x" * 200_000)), invalid, "INVALID_ARGUMENT", ["ingest.dataset_name"])
    refused = expect_refusal(submit({"finetune": {"dataset": "nothing"}}), missing, "NOT_FOUND")
    expect(refused.field == "finetune.dataset", f"the field is named: {refused.field}")
    expect_refusal(lambda: client.get("0" * 26), missing, "NOT_FOUND")

    key = str(uuid.uuid4())
    first = client.call(client.jobs.SubmitJob, client.submission(ingest("keys"), key))
    again = client.call(client.jobs.SubmitJob, client.submission(ingest("keys"), key))
    expect((first.existed, again.existed) == (False, True) and first.job.id == again.job.id, "one key is one job")
    expect_refusal(submit(ingest("others"), key), grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_CONFLICT")

    photo = client.upload_object(b"a photo")
    never = client.reference(b"never uploaded")
    cases = {
        "an unknown manifest": (never, missing, "NOT_FOUND", []),
        "no manifest": (photo, invalid, "INVALID_ARGUMENT", ["ingest.source"]),
        "an unknown object": (client.upload_manifest({"a.png": photo, "b.png": never}), invalid, "INVALID_ARGUMENT",
                              ["ingest.source.files[1].digest"]),
        "paths that are none": (client.upload_manifest({"": photo, "/a": photo, "../a": photo, "fine": photo}), invalid,
                                "INVALID_ARGUMENT", [f"ingest.source.files[{place}].path" for place in range(3)]),
    }
    for what, (manifest, code, reason, fields) in cases.items():
        expect_refusal(submit(ingest("bad", manifest)), code, reason, fields, what)


def expect_parts(client):
    """A large object is made of its parts, and the second time no part is missing."""
    content = bytes(range(256)) * (1 << 16) + b"and the rest"
    reference = client.upload_in_parts(content)
    expect(client.read(reference) == content, "the parts of an object become the object")
    expect(client.upload_in_parts(content) == reference and not client.missing([content]), "it may be joined again")


def expect_pages(client):
    ids = [job.id for job in client.list_jobs()]
    expect(ids == sorted(ids, reverse=True) and len(ids) >= 5, "jobs are listed newest first")
    for page_size in (1, 2, 1_000_000):
        expect([job.id for job in client.list_jobs(page_size)] == ids, f"pages of {page_size} have the same jobs")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", help="host:port of a coordinator")
    parser.add_argument("photos", type=pathlib.Path, help="a folder with a folder of photos for each class")
    parser.add_argument("--token", help="bearer token, where the coordinator asks for one")
    options = parser.parse_args()
    client = Client(options.address, options.token)
    try:
        source, rows = make_all(client, options.photos)
        expect_rejections(client, options.photos)
        refuse_all(client, source)
        expect_parts(client)
        expect_pages(client)
    except Mismatch as mismatch:
        sys.exit(f"api_tour.py: expected that {mismatch}")
    finally:
        client.close()
    for row in rows:
        print(f"{row['path']}: {row['predicted']} ({row['probability']:.3f})")


if __name__ == "__main__":
    main()
