"""Models as pure functions: small networks, and a pair of encoders for images and captions."""

from metalearn.models.networks import MLP, ConvNet, functional, patch_convolution

__all__ = ["MLP", "ConvNet", "functional", "patch_convolution"]
