"""What needs no server: how folders are listed, and which addresses are refused."""

import json
import os
import pathlib
import sys
import tempfile
import typing
import unittest
import unittest.mock

sys.path[:0] = [str(pathlib.Path(__file__).parent), str(pathlib.Path(__file__).parents[1] / "src")]

import inspect

import sortinghat_photos
from sortinghat_photos import (
    AsyncClient,
    BadEndpoint,
    Client,
    IngestSpec,
    UnreadablePhotos,
)
from sortinghat_photos.endpoint import Endpoint
from sortinghat_photos.folder import listing
from sortinghat_photos.jobs import Spec, submission
from sortinghat_photos.objects import manifest, photo
from sortinghat_photos.v1.specs_pb2 import JobSpec


class Folders(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name, "photos")
        for path in ("b/2.png", "a/1.png", "a/deep/3.png", ".hidden/x.png", "a/.DS_Store", "@eaDir/t.png", "empty/below/.keep"):
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            (self.root / path).write_bytes(path.encode())

    def test_files_come_in_the_order_of_their_paths_and_litter_is_left_out(self):
        found = listing(self.root)
        self.assertEqual(list(found.files), ["a/1.png", "a/deep/3.png", "b/2.png"])
        left_out = {reason: sorted(paths) for reason, paths in found.left_out.items()}
        self.assertEqual(left_out["hidden"], [".hidden/", "empty/below/.keep"])
        self.assertEqual(left_out["litter"], ["@eaDir/", "a/.DS_Store"])
        self.assertEqual(left_out["empty_folder"], ["empty/"])

    def test_links_are_followed_inside_the_folder_and_nowhere_else(self):
        outside = self.root.parent / "outside"
        outside.mkdir()
        (outside / "x.png").write_bytes(b"x")
        for name, target in {"c": "a", "out": outside, "a/up": self.root, "broken": "nothing", "gone.png": "nothing.png"}.items():
            (self.root / name).symlink_to(target)
        found = listing(self.root)
        self.assertEqual(sorted(found.files), ["a/1.png", "a/deep/3.png", "b/2.png", "c/1.png", "c/deep/3.png", "gone.png"])
        self.assertEqual(found.left_out["outside_link"], ["out/"])
        self.assertEqual(sorted(found.left_out["circular_link"]), ["a/up/", "c/up/"])
        self.assertEqual(found.left_out["broken_link"], ["broken/"])

    def test_names_that_are_not_utf8_and_pipes_are_left_out(self):
        pathlib.Path(os.fsdecode(os.fsencode(self.root) + b"/\xff.png")).write_bytes(b"x")
        os.mkfifo(self.root / "pipe.png")
        found = listing(self.root)
        self.assertEqual((found.left_out["not_utf8"], found.left_out["special"]), (["\ufffd.png"], ["pipe.png"]))

    def test_the_manifest_states_what_was_read_and_what_was_not(self):
        found = listing({"a.png": self.root / "a" / "1.png", "gone.png": self.root / "gone.png"})
        found.leave_out("x/", "hidden")
        document = json.loads(manifest(found, {path: photo(place) for path, place in found.files.items()}))
        self.assertEqual(
            [file.get("unread") for file in document["files"]], [None, "the file is gone, or it is a link that leads nowhere"]
        )
        self.assertEqual(document["left_out"], [{"reason": "hidden", "entries": 1, "paths": ["x/"]}])

    def test_a_folder_without_photos_is_named(self):
        with self.assertRaisesRegex(UnreadablePhotos, "no photo in"):
            listing(self.root / "empty")
        with self.assertRaisesRegex(UnreadablePhotos, "No such file"):
            listing(self.root / "nothing")


class Addresses(unittest.TestCase):
    def find(self, server=None, **more):
        names = ("token", "token_file", "ca_file", "certificate_file", "key_file")
        return Endpoint.find(server, *(more.get(name) for name in names))

    def test_what_cannot_be_an_address_says_what_to_write(self):
        for url in ("ftp://a:1", "http://", "http://host", "http://host:port", "http://host:1/path"):
            with self.subTest(url), self.assertRaisesRegex(BadEndpoint, "write http://HOST:PORT"):
                self.find(url).target()
        self.assertEqual(self.find("127.0.0.1:7878").target(), ("127.0.0.1:7878", None))

    def test_a_token_does_not_leave_the_machine_in_plain_text(self):
        for url in ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"):
            self.find(url, token="t").target()
        with self.assertRaisesRegex(BadEndpoint, "plain text"):
            self.find("http://photos.example:1", token="t").target()
        self.assertNotIn("secret", repr(self.find("http://127.0.0.1:1", token="secret")))

    def test_a_certificate_needs_its_key_and_a_file_that_is_there(self):
        with self.assertRaisesRegex(BadEndpoint, "needs its key"):
            self.find("https://a:1", certificate_file="cert.pem")
        with self.assertRaisesRegex(BadEndpoint, "failed to read /nothing"):
            self.find("https://a:1", token_file="/nothing")

    def test_the_server_of_hat_up_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            pathlib.Path(folder, "hat.json").write_text('{"url": "http://127.0.0.1:4711"}')
            with unittest.mock.patch.dict(os.environ, {"SORTINGHAT_DATA_DIR": folder}):
                os.environ.pop("SORTINGHAT_SERVER", None)
                self.assertEqual(self.find().url, "http://127.0.0.1:4711")


class Interface(unittest.TestCase):
    def test_both_clients_have_the_same_methods_with_the_same_arguments(self):
        public = lambda kind: {name: each for name, each in vars(kind).items() if not name.startswith("_")}
        self.assertEqual(list(public(Client)), list(public(AsyncClient)))
        for name, method in public(Client).items():
            if callable(method):
                self.assertEqual(
                    list(inspect.signature(method).parameters), list(inspect.signature(public(AsyncClient)[name]).parameters)
                )
                self.assertFalse(inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method), name)
                self.assertTrue(method.__doc__, name)

    def test_every_kind_of_job_has_its_spec_here(self):
        kinds = JobSpec.DESCRIPTOR.oneofs_by_name["kind"].fields
        self.assertEqual([spec.DESCRIPTOR for spec in typing.get_args(Spec)], [field.message_type for field in kinds])
        for spec in typing.get_args(Spec):
            self.assertIs(getattr(sortinghat_photos, spec.__name__), spec)
            submitted = submission(spec(), None, (), 0, False, None, None, None).spec
            self.assertEqual(submitted.WhichOneof("kind"), spec.__name__.removesuffix("Spec").lower())

    def test_a_submission_without_a_key_gets_one_of_its_own(self):
        request = lambda key=None: submission(
            IngestSpec(dataset_name="a"), key, (), 0, False, {"labels": {"zone": "eu"}}, None, None
        )
        self.assertNotEqual(request().idempotency_key, request().idempotency_key)
        self.assertEqual(request("mine").idempotency_key, "mine")
        self.assertEqual(dict(request().requirements.labels), {"zone": "eu"})
        with self.assertRaises(TypeError):
            submission("ingest", None, (), 0, False, None, None, None)


if __name__ == "__main__":
    unittest.main()
