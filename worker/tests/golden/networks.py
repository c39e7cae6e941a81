"""torchvision's and timm's networks with fastai's head and formula weights, under this project's names."""
import timm
import torch
import torchvision
from fastai.vision.all import create_head, nn

from formula import weight

CLASSES = 10
LITE_PARTS = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]


def lite_names():
    """EfficientNet-Lite0's module names in the order of timm's modules."""
    names = ["_conv_stem", "_bn0"]
    for block in range(16):
        names += [f"_blocks.{block}.{part}" for part in (LITE_PARTS[2:] if block == 0 else LITE_PARTS)]
    return names + ["_conv_head", "_bn1"]


class LiteBody(nn.Module):
    """timm's network up to conv_head and its normalisation."""

    def __init__(self):
        super().__init__()
        self.net = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0, global_pool="")

    def forward(self, x):
        return self.net(x)


def build(backbone, classes=CLASSES):
    """(body and head, [(our name, tensor)]) with formula weights and without dropout."""
    if backbone == "efficientnet_lite0":
        body, features = LiteBody(), 1280
        leaves = [m for m in body.modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
        named = list(zip(lite_names(), leaves, strict=True))
    else:
        net = getattr(torchvision.models, backbone)()
        body, features = nn.Sequential(*list(net.children())[:-2]), net.fc.in_features
        named = [(n, m) for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    head = create_head(features, classes, ps=0.0)
    named = [("body." + n, m) for n, m in named]
    # Without dropout fastai leaves its layers out; names count them, as in the head that is trained.
    layers = [m for m in head.children() if list(m.parameters())]
    named += [(f"head.{n}", m) for n, m in zip((2, 4, 6, 8), layers, strict=True)]
    model = nn.Sequential(body, head)
    tensors = []
    with torch.no_grad():
        for name, module in named:
            for part, tensor in module.state_dict(keep_vars=True).items():
                if part != "num_batches_tracked":
                    tensors.append((f"{name}.{part}", tensor))
                    tensor.copy_(weight(f"{name}.{part}", tuple(tensor.shape)))
    return model, tensors


def convert(tensors, kind, layout=torch.contiguous_format):
    """Changes the data of a model's tensors, which stay the model's."""
    for _, tensor in tensors:
        tensor.data = tensor.data.to(kind)
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=layout)
