"""Logits, gradients and batch statistics of every backbone with fastai's head -> networks.json.

The reference is computed in f64, so that a tolerance is all ours; how far PyTorch's own f32 is from it is printed, by
layout of memory and by library: a rectifier near zero may switch. Gradients of a whole network are taken with running
statistics, whose rounding is not amplified by dividing by the deviation of a few values.
"""
import json

import fastai
import timm
import torch
import torch.nn.functional as F
import torchvision
from fastai.vision.all import create_head

from formula import summary, uniform, weight
from networks import build, convert

SIZES = {"efficientnet_lite0": 72, "resnet18": 64, "resnet34": 64, "resnet50": 64}
TARGETS = [1, 3, 0, 9, 4, 4]


def values(name, *shape):
    return torch.from_numpy(uniform(name, torch.Size(shape).numel())).float().double().reshape(shape)


def gradients(backbone, images, kind, layout=torch.contiguous_format):
    """(model, its tensors by name, logits, loss) after a backward pass in evaluation mode."""
    model, tensors = build(backbone)
    convert(tensors, kind, layout)
    logits = model.eval()(images.to(kind).to(memory_format=layout))
    loss = F.cross_entropy(logits, torch.tensor(TARGETS))
    loss.backward()
    return model, dict(tensors), logits, loss


def report(backbone, images, exact):
    """Prints how far f32 gradients are from `exact` ones, relative to their norm."""
    for layout in (torch.contiguous_format, torch.channels_last):
        for library in (True, False):
            with torch.backends.mkldnn.flags(enabled=library):
                _, tensors, _, _ = gradients(backbone, images, torch.float32, layout)
            off = [max(abs(a - b) for a, b in zip(summary(n, tensors[n].grad), stored)) / max(stored[0], 1e-6)
                   for n, stored in exact.items()]
            print(backbone, layout, "oneDNN" if library else "native", "f32 gradients are off by", max(off))


def network(backbone, size):
    images = values("images", len(TARGETS), 3, size, size)
    model, tensors, logits, loss = gradients(backbone, images, torch.float64)
    exact = {n: summary(n, t.grad) for n, t in tensors.items() if t.requires_grad}
    report(backbone, images, exact)
    with torch.no_grad():
        trained = model.train()(images)
        single = build(backbone)[0].train()(images.float())
    print(backbone, loss.item(), "f32 in training mode is off by", (single - trained).abs().max().item())
    return {"size": size, "logits": logits.tolist(), "train_logits": trained.tolist(), "loss": loss.item(),
            "gradients": exact, "statistics": {n: summary(n, t) for n, t in tensors.items() if not t.requires_grad}}


def head():
    """fastai's head for 8 features and 3 classes in training mode: logits, gradients, moved statistics."""
    layers = create_head(8, 3, ps=0.0)
    names = ["2", "4", "6", "8"]
    named = list(zip(names, [m for m in layers.children() if list(m.parameters())], strict=True))
    layers.double()
    tensors = {f"{n}.{part}": tensor for n, m in named for part, tensor in m.state_dict(keep_vars=True).items()
               if part != "num_batches_tracked"}
    for name, tensor in tensors.items():
        tensor.data.copy_(weight(name, tuple(tensor.shape)))
    features = values("features", 5, 8, 3, 3).requires_grad_()
    logits = layers.train()(features)
    F.cross_entropy(logits, torch.tensor([0, 2, 1, 1, 0])).backward()
    return {"logits": logits.tolist(), "input_gradient": summary("features", features.grad),
            "gradients": {n: summary(n, t.grad) for n, t in tensors.items() if t.requires_grad},
            "statistics": {n: t.tolist()[:16] for n, t in tensors.items() if not t.requires_grad}}


out = {"torch": torch.__version__, "torchvision": torchvision.__version__, "timm": timm.__version__,
       "fastai": fastai.__version__, "targets": TARGETS, "head": head(),
       "networks": {backbone: network(backbone, size) for backbone, size in SIZES.items()}}
json.dump(out, open("networks.json", "w"), indent=None, separators=(",", ":"))
