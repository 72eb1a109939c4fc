"""The zoo's table: one row a model. A family's file has `build(arch, classes, aux=False) -> nn.Module`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Triple: TypeAlias = tuple[float, float, float]
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB, 0-255 scale
# From -1 to 1: what the public weights of GoogLeNet and Inception v3 were trained on. torchvision normalises by
# ImageNet's figures first and undoes it within the network (`transform_input`); here nothing needs undoing.
HALF: Triple = (127.5, 127.5, 127.5)


@dataclass(frozen=True)
class Entry:
    family: str  # edgecnn.zoo.<family>
    about: str
    side: int = 224  # of the square input, px
    parameters: int = 0  # the published count, with the published number of classes; 0: none is published
    classes: int = 1000  # to which the published count belongs
    channels: Literal["rgb", "grey"] = "rgb"
    aux: bool = False  # auxiliary heads while training
    mean: Triple = IMAGENET_MEAN  # of the input, RGB, 0-255 scale
    std: Triple = IMAGENET_STD
    least: int = 1  # side of the smallest input, px: below, a map would be smaller than its kernel


MODELS = {
    "lenet5": Entry("lenet", "LeNet-5 with ReLU and max pooling", 32, 61_706, 10, "grey"),
    "lenet5_original": Entry("lenet", "LeNet-5 of 1998: sparse C3, trained subsampling, RBF", 32, 60_000, 10, "grey"),
    "alexnet": Entry("alexnet", "AlexNet, torchvision's names", 224, 61_100_840, least=63),
    "alexnet_original": Entry("alexnet", "AlexNet of 2012: two groups, LRN", 227, 60_965_224, least=67),
    "zfnet": Entry("alexnet", "ZFNet: AlexNet with a finer first layer", 224, least=53),
    "vgg11": Entry("vgg", "VGG A", 224, 132_863_336, least=32),
    "vgg13": Entry("vgg", "VGG B", 224, 133_047_848, least=32),
    "vgg16c": Entry("vgg", "VGG C, with 1x1 convolutions", 224, least=32),
    "vgg16": Entry("vgg", "VGG D", 224, 138_357_544, least=32),
    "vgg19": Entry("vgg", "VGG E", 224, 143_667_240, least=32),
    "vgg11_bn": Entry("vgg", "VGG A with batch normalisation", 224, 132_868_840, least=32),
    "vgg13_bn": Entry("vgg", "VGG B with batch normalisation", 224, 133_053_736, least=32),
    "vgg16_bn": Entry("vgg", "VGG D with batch normalisation", 224, 138_365_992, least=32),
    "vgg19_bn": Entry("vgg", "VGG E with batch normalisation", 224, 143_678_248, least=32),
    "googlenet": Entry(
        "googlenet", "GoogLeNet, torchvision's names (with BN)", 224, 6_624_904, aux=True, mean=HALF, std=HALF
    ),
    "googlenet_original": Entry("googlenet", "GoogLeNet of 2014: LRN, 5x5 kernels", 224, 6_998_552, aux=True),
    "inception_v2": Entry("inception", "BN-Inception: 3x3 pairs for 5x5", 224),
    "inception_v3": Entry(
        "inception", "Inception v3, torchvision's names", 299, 23_834_568, aux=True, mean=HALF, std=HALF, least=75
    ),
    "resnet18": Entry("resnet", "ResNet-18, torchvision's names", 224, 11_689_512),
    "resnet34": Entry("resnet", "ResNet-34, torchvision's names", 224, 21_797_672),
    "resnet50": Entry("resnet", "ResNet-50, torchvision's names", 224, 25_557_032),
    "resnet101": Entry("resnet", "ResNet-101, torchvision's names", 224, 44_549_160),
    "resnet152": Entry("resnet", "ResNet-152, torchvision's names", 224, 60_192_808),
}
