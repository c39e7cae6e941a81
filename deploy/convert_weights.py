#!/usr/bin/env python3
"""Convert a checkpoint in torch's legacy (pre-zip) pickle format to safetensors, without importing torch.

    convert_weights.py CHECKPOINT.pth OUT.safetensors

A pickle may name any function to call. This one is read by an unpickler that admits four names - the ordered
dictionary, the tensor-rebuilding function and two storage types - and refuses every other, so nothing that the
file says can run. Storages are read as plain little-endian bytes. Counters of BatchNorm (`num_batches_tracked`)
play no part in prediction and are left out; every other tensor must be f32 and is written in name order, so the
same checkpoint always gives the same bytes.

Legacy layout: five pickles (magic, protocol, system facts, the state dict, the storage keys in file order), then
for each storage its element count (i64) and its elements.
"""

import collections
import json
import os
import pickle
import struct
import sys

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

StorageType = collections.namedtuple("StorageType", "dtype element_bytes")
StorageRef = collections.namedtuple("StorageRef", "type key elements")
TensorRef = collections.namedtuple("TensorRef", "storage offset shape stride")

FLOAT = StorageType("F32", 4)
LONG = StorageType("I64", 8)


class UnsafeCheckpoint(Exception):
    """The file asks for something that a state dict of tensors does not need."""


def rebuild_tensor(storage, offset, shape, stride, _requires_grad, _hooks):
    """Stands in for `torch._utils._rebuild_tensor_v2`: remembers where the elements lie."""
    return TensorRef(storage, offset, tuple(shape), tuple(stride))


class StateDictUnpickler(pickle.Unpickler):
    """Unpickles a dictionary of tensors and nothing else."""

    ADMITTED = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch", "FloatStorage"): FLOAT,
        ("torch", "LongStorage"): LONG,
    }

    def find_class(self, module, name):
        try:
            return self.ADMITTED[(module, name)]
        except KeyError:
            raise UnsafeCheckpoint(f"the checkpoint refers to {module}.{name}, which weights do not need") from None

    def persistent_load(self, saved_id):
        if saved_id[0] != "storage" or saved_id[5] is not None:
            raise UnsafeCheckpoint(f"unexpected storage reference {saved_id!r}")
        _, storage_type, key, _location, elements, _view = saved_id
        return StorageRef(storage_type, key, elements)


def read_checkpoint(path):
    """Reads the state dict at `path`: name -> (TensorRef), and storage key -> bytes."""
    with open(path, "rb") as file:
        if StateDictUnpickler(file).load() != LEGACY_MAGIC:
            raise UnsafeCheckpoint("not a checkpoint in torch's legacy format")
        if StateDictUnpickler(file).load() != LEGACY_PROTOCOL:
            raise UnsafeCheckpoint("unknown version of torch's legacy format")
        if not StateDictUnpickler(file).load()["little_endian"]:
            raise UnsafeCheckpoint("big-endian checkpoints are not supported")
        tensors = StateDictUnpickler(file).load()
        keys = StateDictUnpickler(file).load()
        types = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
        return tensors, {key: read_storage(file, types[key]) for key in keys}


def read_storage(file, storage):
    """Reads one storage: its element count, checked against the reference, then its bytes."""
    (elements,) = struct.unpack("<q", file.read(8))
    if elements != storage.elements:
        raise UnsafeCheckpoint(f"storage {storage.key} holds {elements} elements instead of {storage.elements}")
    data = file.read(elements * storage.type.element_bytes)
    if len(data) != elements * storage.type.element_bytes:
        raise UnsafeCheckpoint(f"the file ends inside storage {storage.key}")
    return data


def row_major_bytes(name, tensor, storages):
    """The f32 bytes of one tensor in row-major order, whatever the strides it was saved with."""
    if tensor.storage.type is not FLOAT:
        raise UnsafeCheckpoint(f"{name} is {tensor.storage.type.dtype}; only F32 is supported")
    if len(tensor.shape) != len(tensor.stride) or min(tensor.shape + tensor.stride, default=1) < 1:
        raise UnsafeCheckpoint(f"{name} has the impossible shape {tensor.shape} with strides {tensor.stride}")
    last = tensor.offset + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride))
    if tensor.offset < 0 or last >= tensor.storage.elements:
        raise UnsafeCheckpoint(f"{name} reaches past the end of its storage")
    elements = memoryview(storages[tensor.storage.key]).cast("f")
    return b"".join(rows(elements, tensor.offset, tensor.shape, tensor.stride))


def rows(elements, offset, shape, stride):
    """The innermost rows of a strided tensor, each as bytes, outermost index first."""
    if not shape:
        yield elements[offset : offset + 1].tobytes()
    elif len(shape) == 1:
        yield elements[offset : offset + (shape[0] - 1) * stride[0] + 1 : stride[0]].tobytes()
    else:
        for index in range(shape[0]):
            yield from rows(elements, offset + index * stride[0], shape[1:], stride[1:])


def write_safetensors(path, tensors, storages):
    """Writes `tensors` to `path` in name order; the file appears whole or not at all."""
    header, blobs, offset = {}, [], 0
    for name in sorted(tensors):
        if name.endswith("num_batches_tracked"):
            continue
        data = row_major_bytes(name, tensors[name], storages)
        header[name] = {
            "dtype": "F32",
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        blobs.append(data)
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    part = f"{path}.part"
    with open(part, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.writelines(blobs)
    os.replace(part, path)


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__.strip())
    tensors, storages = read_checkpoint(arguments[0])
    write_safetensors(arguments[1], tensors, storages)


if __name__ == "__main__":
    main(sys.argv[1:])
