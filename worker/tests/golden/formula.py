"""Weights, pixels and orders that Rust and Python compute alike, so that only results need to be stored."""
import hashlib
import math
import struct

import numpy as np
import torch

MASK = (1 << 64) - 1


def mix(x):
    """SplitMix64's finaliser over uint64 arrays."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(name, count):
    """`count` values in [-1, 1), a function of the name alone."""
    start = 0xCBF29CE484222325
    for byte in name.encode():
        start = ((start ^ byte) * 0x100000001B3) & MASK
    with np.errstate(over="ignore"):
        index = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        bits = mix(index + np.uint64(start))
    return (bits >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


def weight(name, shape):
    """The value of the parameter or statistic `name`, f32."""
    values = uniform(name, math.prod(shape)).reshape(shape)
    if len(shape) > 1:
        values = values * math.sqrt(3.0 / math.prod(shape[1:]))
    elif name.endswith(".running_var"):
        values = 1.0 + 0.2 * values
    elif name.endswith(".weight"):
        values = 1.0 + 0.1 * values
    else:
        values = 0.1 * values
    return torch.from_numpy(values).float()


def summary(name, tensor):
    """A tensor in two numbers: its norm, and its product with a fixed direction."""
    flat = tensor.detach().double().flatten()
    return [flat.norm().item(), flat.dot(torch.from_numpy(uniform(name + "#probe", flat.numel()))).item()]


def order(seed, phase, epoch, count):
    """The trainer's permutation of an epoch (purpose 1), written a second time from its description."""
    name = hashlib.sha256(
        b"sortinghat.randomness.v1" + struct.pack("<QBBI", seed, 1, phase, epoch) + struct.pack("<Q", 0)
    ).digest()
    state, increment = struct.unpack("<QQ", name[:16])
    increment |= 1

    def bits():
        nonlocal state
        state = (state + increment) & MASK
        x = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    def below(bound):
        threshold = ((1 << 64) - bound) % bound
        while True:
            product = bits() * bound
            if product & MASK >= threshold:
                return product >> 64

    indices = list(range(count))
    for last in range(count - 1, 0, -1):
        other = below(last + 1)
        indices[last], indices[other] = indices[other], indices[last]
    return indices
