"""The converter of legacy checkpoints admits tensors and nothing else."""

import collections
import json
import os
import pathlib
import pickle
import struct
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy"))

import convert_weights
from convert_weights import LEGACY_MAGIC, LEGACY_PROTOCOL, UnsafeCheckpoint

SYSTEM_FACTS = {"protocol_version": LEGACY_PROTOCOL, "little_endian": True, "type_sizes": {}}


class Global:
    """Pickles as a reference to MODULE.NAME, which need not exist here."""

    def __init__(self, module, name):
        self.reference = f"c{module}\n{name}\n".encode()


class LegacyPickler(pickle._Pickler):
    """Writes tensors as torch did: a call of the rebuilding function on a reference to a storage."""

    def save(self, value, *arguments, **options):
        if isinstance(value, Global):
            return self.write(value.reference)
        return super().save(value, *arguments, **options)

    def persistent_id(self, value):
        return value if isinstance(value, tuple) and value[:1] == ("storage",) else None


class Tensor:
    """A tensor over one storage of its own."""

    def __init__(self, key, elements, shape, stride):
        storage = ("storage", Global("torch", "FloatStorage"), key, "cpu", elements, None)
        self.arguments = (storage, 0, shape, stride, False, collections.OrderedDict())

    def __reduce__(self):
        return rebuild, self.arguments


def rebuild(*_arguments):
    """Only its name is written."""


def write_checkpoint(path, state, storages, counts=None):
    with open(path, "wb") as file:
        for header in (LEGACY_MAGIC, LEGACY_PROTOCOL, SYSTEM_FACTS):
            file.write(pickle.dumps(header, protocol=2))
        LegacyPickler(file, protocol=2).dump(state)
        file.write(pickle.dumps(list(storages), protocol=2))
        for key, values in storages.items():
            file.write(struct.pack("<q", (counts or {}).get(key, len(values))))
            file.write(struct.pack(f"<{len(values)}f", *values))


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    return {
        name: (entry["shape"], struct.unpack(f"<{(entry['data_offsets'][1] - entry['data_offsets'][0]) // 4}f",
                                             body[slice(*entry["data_offsets"])]))
        for name, entry in header.items()
    }


class ConvertWeights(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.checkpoint = os.path.join(folder.name, "weights.pth")
        self.converted = os.path.join(folder.name, "weights.safetensors")
        # What the test's pickles name as the rebuilding function.
        admitted = convert_weights.StateDictUnpickler.ADMITTED
        name = (rebuild.__module__, "rebuild")
        admitted[name] = convert_weights.rebuild_tensor
        self.addCleanup(admitted.pop, name)

    def test_a_transposed_tensor_is_written_in_row_major_order(self):
        state = {"w": Tensor("k", 6, (2, 3), (1, 2))}
        write_checkpoint(self.checkpoint, state, {"k": [0, 1, 2, 3, 4, 5]})
        convert_weights.main([self.checkpoint, self.converted])
        self.assertEqual(read_safetensors(self.converted), {"w": ([2, 3], (0, 2, 4, 1, 3, 5))})

    def test_counters_of_batches_are_left_out(self):
        state = {"bn.weight": Tensor("a", 1, (1,), (1,)), "bn.num_batches_tracked": Tensor("b", 1, (), ())}
        write_checkpoint(self.checkpoint, state, {"a": [0.5], "b": [7]})
        convert_weights.main([self.checkpoint, self.converted])
        self.assertEqual(read_safetensors(self.converted), {"bn.weight": ([1], (0.5,))})

    def test_a_checkpoint_that_names_another_function_is_refused_without_calling_it(self):
        with open(self.checkpoint, "wb") as file:
            for header in (LEGACY_MAGIC, LEGACY_PROTOCOL, SYSTEM_FACTS):
                file.write(pickle.dumps(header, protocol=2))
            file.write(b"cos\nmkdir\n(S'" + self.converted.encode() + b"'\ntR.")
        with self.assertRaisesRegex(UnsafeCheckpoint, "os.mkdir"):
            convert_weights.main([self.checkpoint, self.converted])
        self.assertFalse(os.path.exists(self.converted))

    def test_a_tensor_that_reaches_past_its_storage_is_refused(self):
        write_checkpoint(self.checkpoint, {"w": Tensor("k", 4, (2, 3), (3, 1))}, {"k": [0, 1, 2, 3]})
        with self.assertRaisesRegex(UnsafeCheckpoint, "past the end"):
            convert_weights.main([self.checkpoint, self.converted])

    def test_a_truncated_storage_is_refused(self):
        write_checkpoint(self.checkpoint, {"w": Tensor("k", 4, (4,), (1,))}, {"k": [0, 1]}, counts={"k": 4})
        with self.assertRaisesRegex(UnsafeCheckpoint, "ends inside"):
            convert_weights.main([self.checkpoint, self.converted])


if __name__ == "__main__":
    unittest.main()
