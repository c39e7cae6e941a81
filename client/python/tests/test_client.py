"""The client against a real coordinator and a real worker."""

import asyncio
import datetime
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import unittest.mock
from concurrent.futures import ThreadPoolExecutor

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "src")]

import sortinghat_photos as sortinghat
from photos import write_photos
from server import CHECKOUT, Gate, Server, certificate, tokens_file
from sortinghat_photos import (
    AsyncClient,
    ClassifySpec,
    Client,
    EvaluateSpec,
    FinetuneSpec,
    IngestSpec,
    describe,
    made_by,
)
from sortinghat_photos.objects import photo

TRAINING = {"weights": "none", "epochs": 1, "batch_size": 4, "image_size_px": 32}


class Tour(unittest.TestCase):
    """All kinds of jobs, on one server."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.stop)
        cls.photos = write_photos(cls.server.folder / "photos", 6)
        cls.client = Client(cls.server.url)
        cls.addClassCleanup(cls.client.close)
        cls.source = cls.client.upload(cls.photos)
        cls.ingest = cls.client.submit(IngestSpec(dataset_name="shapes", source=cls.source))
        cls.finetune = cls.client.submit(FinetuneSpec(dataset=made_by(cls.ingest), **TRAINING))
        cls.client.wait(cls.finetune)

    def test_every_result_is_a_table(self):
        evaluate = self.client.submit(EvaluateSpec(model="shapes"))
        classify = self.client.submit(ClassifySpec(model="shapes", source=self.source, top_k=2))
        predictions = self.client.predictions(classify)
        frame = predictions.to_pandas()
        self.assertEqual(len(frame), 18)
        self.assertEqual(list(frame.path), sorted(frame.path))
        self.assertTrue(frame.probability.between(0, 1).all())
        photos = self.client.photos(self.client.dataset("shapes"), columns=["label", "split"])
        self.assertEqual((photos.num_rows, photos.column_names), (18, ["label", "split"]))
        judgements = self.client.judgements(evaluate)
        self.assertEqual(judgements.column_names[:4], ["path", "digest", "label", "predicted"])
        self.assertEqual(judgements.num_rows, self.client.document(self.client.wait(evaluate))["plain"]["photos"])

    def test_a_history_is_followed_once_and_in_order(self):
        updates = list(self.client.watch(self.finetune))
        events = [update for update in updates if isinstance(update, sortinghat.JobEvent)]
        self.assertEqual([event.sequence for event in events], list(range(1, len(events) + 1)))
        self.assertEqual(events[-1].state_changed.state, sortinghat.JobState.JOB_STATE_SUCCEEDED)
        self.assertTrue(all(describe(update) for update in updates))
        self.assertIn("succeeded: shapes/1", describe(events[-1]))
        self.assertEqual(
            [each.sequence for each in self.client.watch(self.finetune, after_sequence=2)], [e.sequence for e in events[2:]]
        )

    def test_a_second_upload_sends_nothing_and_is_the_same(self):
        self.assertEqual(self.client.upload(self.photos), self.source)
        self.assertEqual(self.client.missing([self.source.digest, "0" * 64]), ["0" * 64])

    def test_files_that_cannot_be_read_cost_only_themselves(self):
        good = self.photos / "red" / "000.png"
        source = self.client.upload({"good.png": good, "gone.png": self.photos / "gone.png", "text.png": __file__})
        rows = self.client.predictions(self.client.submit(ClassifySpec(model="shapes", source=source))).to_pylist()
        self.assertEqual(
            [(row["path"], row["error"] is None) for row in rows], [("good.png", True), ("gone.png", False), ("text.png", False)]
        )
        self.assertIn("gone", rows[1]["error"])

    def test_a_file_that_changes_while_it_is_uploaded_costs_only_itself(self):
        with tempfile.TemporaryDirectory() as folder:
            photos = write_photos(pathlib.Path(folder), 5, side=32)
            changing = photos / "green" / "002.png"

            def hash_and_change(path):
                reference = photo(path)
                if path == changing:
                    path.write_bytes(b"something else")
                return reference

            with unittest.mock.patch("sortinghat_photos._sync.client.photo", hash_and_change):
                source = self.client.upload(photos)
        files = {file["path"]: file.get("unread") for file in self.client.document(source)["files"]}
        self.assertEqual({path: why for path, why in files.items() if why}, {"green/002.png": "it changed while it was uploaded"})
        self.assertEqual(
            self.client.missing(file["digest"] for file in self.client.document(source)["files"] if not file.get("unread")), []
        )

    def test_a_refusal_names_code_field_and_reason(self):
        with self.assertRaises(sortinghat.Refused) as caught:
            self.client.submit(FinetuneSpec(dataset="shapes", epochs=5000))
        refused = caught.exception
        self.assertEqual((refused.code, refused.failure_class, refused.may_retry), ("INVALID_ARGUMENT", "USER", False))
        self.assertEqual([each.field for each in refused.violations], ["finetune.epochs"])
        self.assertIn("epochs", str(refused))
        with self.assertRaises(sortinghat.Refused) as caught:
            self.client.get("0" * 26)
        self.assertEqual(caught.exception.code, "NOT_FOUND")

    def test_a_failed_job_raises_and_may_be_retried(self):
        one = {"one/a.png": self.photos / "red" / "000.png"}
        job = self.client.submit(IngestSpec(dataset_name="one", source=self.client.upload(one)))
        with self.assertRaises(sortinghat.JobFailed) as caught:
            self.client.wait(job)
        failed = caught.exception
        self.assertEqual((failed.code, failed.job.id, failed.may_retry), ("UNUSABLE_DATA", job.id, False))
        again = self.client.retry(job)
        self.assertEqual(again.retry_of, job.id)
        with self.assertRaises(sortinghat.JobFailed):
            self.client.wait(again)
        with self.assertRaises(ValueError):
            self.client.read(failed.job)

    def test_jobs_are_listed_explained_and_cancelled(self):
        later = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
        job = self.client.submit(IngestSpec(dataset_name="later", source=self.source), key="once", not_before=later, priority=3)
        self.assertEqual(
            self.client.submit(IngestSpec(dataset_name="later", source=self.source), key="once", not_before=later, priority=3).id,
            job.id,
        )
        self.assertEqual(self.client.explain(job).WhichOneof("reason"), "not_before")
        self.assertIn(job.id, [each.id for each in self.client.jobs(kind="ingest", states=[sortinghat.JobState.JOB_STATE_QUEUED])])
        self.client.cancel(job)
        with self.assertRaises(sortinghat.JobFailed) as caught:
            self.client.wait(job)
        self.assertEqual(caught.exception.code, "CANCELLED")
        with self.assertRaises(ValueError):
            self.client.submit(IngestSpec(dataset_name="later", source=self.source), not_before=datetime.datetime(2030, 1, 1))

    def test_the_jobs_of_one_user_are_found_by_their_label_and_deleted(self):
        source = self.client.upload({"mine.png": self.photos / "red" / "000.png"})
        labels, begun = {"user": "42"}, datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
        spec = ClassifySpec(model="shapes", source=source)
        job = self.client.wait(self.client.submit(spec, labels=labels, keep_for=datetime.timedelta(days=1), key="of-42"))
        self.assertEqual((dict(job.labels), job.keep_for_ms), (labels, 86_400_000))
        found = [each.id for each in self.client.jobs(labels=labels, key="of-42", created_from=begun)]
        self.assertEqual((found, list(self.client.jobs(labels={"user": "43"}))), ([job.id], []))
        self.assertEqual(list(self.client.jobs(labels=labels, created_before=begun)), [])
        self.assertGreater(self.client.delete_job(job), datetime.timedelta())
        self.assertGreater(self.client.delete_objects([source, job]), datetime.timedelta())
        with self.assertRaises(sortinghat.Refused):
            self.client.get(job)

    def test_names_are_listed_and_removed(self):
        copy = self.client.wait(self.client.submit(IngestSpec(dataset_name="copy", source=self.source)))
        self.assertIn("copy@1", [dataset.name for dataset in self.client.datasets()])
        self.assertEqual([model.name for model in self.client.models()], ["shapes/1"])
        self.assertEqual(self.client.dataset("copy").manifest, copy.output.manifest)
        self.client.delete_dataset("copy@1")
        self.assertNotIn("copy@1", [dataset.name for dataset in self.client.datasets()])
        self.assertEqual((self.client.who_am_i().role, len(self.client.workers())), ("everyone", 1))

    def test_a_download_appears_as_a_whole(self):
        model = self.client.document(self.client.model("shapes").manifest)
        part = next(value for value in model.values() if isinstance(value, dict) and "digest" in value)
        with tempfile.TemporaryDirectory() as folder:
            target = pathlib.Path(folder, "weights.safetensors")
            self.client.download(part, target)
            self.assertEqual(target.stat().st_size, part["size_bytes"])
            with self.assertRaises(sortinghat.Refused):
                self.client.download("0" * 64, target)
            self.assertEqual(
                ([path.name for path in target.parent.iterdir()], target.stat().st_size), ([target.name], part["size_bytes"])
            )

    def test_the_asynchronous_client_does_the_same(self):
        async def tour():
            async with AsyncClient(self.server.url) as client:
                source = await client.upload(self.photos)
                self.assertEqual(source, self.source)
                jobs = [await client.submit(ClassifySpec(model="shapes", source=source, top_k=k)) for k in (1, 2)]
                tables = await asyncio.gather(*(client.predictions(job) for job in jobs))
                self.assertEqual([len(table["top"][0]) for table in tables], [1, 2])
                ids = [job.id async for job in client.jobs(kind="classify")]
                self.assertTrue(set(ids) >= {job.id for job in jobs})
                with self.assertRaises(sortinghat.Refused):
                    await client.get("0" * 26)

        asyncio.run(tour())

    def test_the_examples_of_the_page_run(self):
        page = (CHECKOUT / "docs" / "python.md").read_text()
        # Random weights stand in for the pretrained ones, which the recipe of the page needs.
        blocks = [
            block.replace('recipe="fast"', 'weights="none", epochs=1, batch_size=4, image_size_px=32')
            for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        ]
        self.assertEqual(len(blocks), 3)
        with tempfile.TemporaryDirectory() as folder:
            write_photos(pathlib.Path(folder, "photos"), 4)
            write_photos(pathlib.Path(folder, "holiday"), 1)
            outputs = []
            for block in blocks:
                environment = {**os.environ, "SORTINGHAT_SERVER": self.server.url, "PYTHONPATH": sys.path[1]}
                ran = subprocess.run([sys.executable, "-c", block], cwd=folder, env=environment, capture_output=True, text=True)
                self.assertEqual(ran.returncode, 0, f"{block}\n{ran.stderr}")
                outputs.append(ran.stdout)
        self.assertIn("green/000.png", outputs[0])
        self.assertIn("of 3 held-out photos are right", outputs[0])
        self.assertIn("INVALID_ARGUMENT finetune.epochs", outputs[2])


class Parts(unittest.TestCase):
    """A job that is divided."""

    def test_predictions_come_in_order_while_the_job_runs(self):
        server = Server(["--shard-items", "4"])
        self.addCleanup(server.stop)
        with Client(server.url) as client:
            source = client.upload(write_photos(server.folder / "photos", 6))
            ingest = client.submit(IngestSpec(dataset_name="shapes", source=source))
            finetune = client.submit(FinetuneSpec(dataset=made_by(ingest), **TRAINING))
            classify = client.submit(ClassifySpec(model=made_by(finetune), source=source))
            tables = list(client.watch_predictions(classify))
            self.assertEqual(
                [row for table in tables for row in table.to_pylist()], client.predictions(client.wait(classify)).to_pylist()
            )
            self.assertGreater(len(tables), 1)
            # Now there is one part with everything.
            (rest,) = client.watch_predictions(classify, first_row=7)
            self.assertEqual(rest.num_rows, 11)
            server.stop_worker()
            waiting = client.submit(ClassifySpec(model="shapes", source=source))
            client.cancel(waiting)
            with self.assertRaises(sortinghat.JobFailed):
                list(client.watch_predictions(waiting))


class Interruptions(unittest.TestCase):
    def test_a_coordinator_that_is_killed_and_replaced_fails_nothing(self):
        server = Server()
        self.addCleanup(server.stop)
        photos = write_photos(server.folder / "photos", 40)
        with Client(server.url, patience_s=60) as client:
            ingest = client.submit(IngestSpec(dataset_name="shapes", source=client.upload(photos)))
            finetune = client.submit(FinetuneSpec(dataset=made_by(ingest), **TRAINING | {"epochs": 3}))
            sequences = []
            for update in client.watch(finetune):
                if isinstance(update, sortinghat.JobEvent):
                    sequences.append(update.sequence)
                    if len(sequences) == 2:
                        server.kill_coordinator()
                        # A call of the time in which no server is there.
                        with ThreadPoolExecutor(1) as pool:
                            waiting = pool.submit(client.get, ingest)
                            server.start_coordinator()
                            self.assertEqual(waiting.result().id, ingest.id)
            self.assertEqual(sequences, list(range(1, len(sequences) + 1)))
            self.assertEqual(client.get(finetune).output.name, "shapes/1")

    def test_a_server_that_stays_away_is_reported_with_the_next_step(self):
        with Client("http://127.0.0.1:1", patience_s=0.2) as client:
            with self.assertRaises(sortinghat.Unreachable) as caught:
                client.who_am_i()
        self.assertIn("no server answers at http://127.0.0.1:1", str(caught.exception))
        self.assertIn("hat up", str(caught.exception))


class Access(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        certificate(cls.folder)
        tokens_file(cls.folder / "tokens.toml", "secret-of-ann")
        (cls.folder / "token").write_text("secret-of-ann\n")
        flags = ["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--credentials", "tokens.toml"]
        arguments = [flag if flag.startswith("--") else str(cls.folder / flag) for flag in flags]
        cls.server = Server(arguments, scheme="https", has_worker=False)
        cls.addClassCleanup(cls.server.stop)

    def test_a_token_and_a_certificate_let_in(self):
        with Client(self.server.url, token_file=self.folder / "token", ca_file=self.folder / "cert.pem") as client:
            self.assertEqual((client.who_am_i().id, client.who_am_i().tenant), ("ann", "lab"))

    def test_the_variables_of_hat_are_heeded(self):
        variables = {
            "SORTINGHAT_SERVER": self.server.url,
            "SORTINGHAT_TOKEN_FILE": str(self.folder / "token"),
            "SORTINGHAT_CA_FILE": str(self.folder / "cert.pem"),
        }
        with unittest.mock.patch.dict(os.environ, variables), Client() as client:
            self.assertEqual(client.who_am_i().id, "ann")

    def test_a_certificate_of_the_caller_is_shown(self):
        plain = Server(has_worker=False)
        self.addCleanup(plain.stop)
        gate = Gate(self.folder, plain.address)
        self.addCleanup(gate.close)
        ca, certificate_file, key_file = self.folder / "cert.pem", self.folder / "cert.pem", self.folder / "key.pem"
        with Client(gate.url, ca_file=ca, certificate_file=certificate_file, key_file=key_file) as client:
            self.assertEqual(client.who_am_i().role, "everyone")
        with Client(gate.url, ca_file=ca, patience_s=0.2) as client, self.assertRaises(sortinghat.Unreachable):
            client.who_am_i()

    def test_a_wrong_token_is_refused_and_not_tried_again(self):
        with Client(self.server.url, token="wrong", ca_file=self.folder / "cert.pem") as client:
            with self.assertRaises(sortinghat.Refused) as caught:
                client.who_am_i()
        self.assertEqual((caught.exception.code, caught.exception.may_retry), ("PERMISSION_DENIED", False))

    def test_an_unknown_certificate_is_not_trusted(self):
        with Client(self.server.url, token="secret-of-ann", patience_s=0.2) as client:
            with self.assertRaises(sortinghat.Unreachable):
                client.who_am_i()


if __name__ == "__main__":
    unittest.main()
