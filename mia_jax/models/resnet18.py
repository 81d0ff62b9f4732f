"""Builds ResNet-18 (He et al. 2015, arXiv:1512.03385)."""

from __future__ import annotations

import flax.linen as nn

from mia_jax import checks
from mia_jax.models import layers
from mia_jax.types import Model


class ResNet18(nn.Module):
    num_classes: int
    width: int
    norm: str
    groups: int
    resize: int
    init_name: str
    form: str

    @nn.compact
    def __call__(self, x, *, key_B=None, weight_B=None, train=False):
        relu, init = layers.activation("relu"), layers.initializer(self.init_name)

        def normal(x):
            return layers.normalized(
                x, self.norm, weight_B=weight_B, train=train, groups=self.groups
            )

        def conv(x, features, window, stride=1):
            return layers.Conv(
                features, window, stride, window // 2, kernel_init=init, form=self.form
            )(x)

        x = relu(normal(conv(layers.resized(x, self.resize), self.width, 7, 2)))
        x = layers.max_pool(x, 3, 2, ((1, 1), (1, 1)), form=self.form)
        for stage in range(4):
            for block in range(2):
                features, stride = self.width << stage, 2 if stage and not block else 1
                y = relu(normal(conv(x, features, 3, stride)))
                y = normal(conv(y, features, 3))
                x = relu(y + (conv(x, features, 1, stride) if stride > 1 else x))
        return layers.Dense(self.num_classes, kernel_init=init)(x.mean((1, 2)))


def make(
    *,
    num_classes: int,
    width: int = 64,
    norm: str = "batch",
    groups: int = 16,
    resize: int = 96,
    init: str = "xavier_uniform",
    form: str = "auto",
) -> Model:
    """Returns ResNet-18: a convolution, four stages of two residual blocks, mean, dense C.

    The layers are conv 7x7 stride 2, norm, relu, max 3/2, then the stages with `width` times 1, 2,
    4, 8 features. A block is relu(x + norm(conv3x3(relu(norm(conv3x3(x)))))). Where it halves the
    image (the first block of stages 2 to 4), x passes through a 1x1 convolution of stride 2. It has
    11,178,378 parameters with one channel and 10 classes for images of any size (convolutions have
    biases; running statistics are not counted).

    Args:
        num_classes: C.
        width: the features of the first stage.
        norm: 'batch' (the paper), 'group', 'layer' or 'none' (11,170,570 parameters). Private
            training takes the last three.
        groups: the groups of norm='group', or the largest smaller divisor of the features.
        resize: the side to which images are enlarged first (bilinear); 0 leaves them unchanged.
        init: the initializer of the kernels.
        form: see layers.Conv.
    """
    checks.at_least(1, num_classes=num_classes, width=width, groups=groups)
    checks.at_least(0, resize=resize)
    checks.one_of(layers.NORMS, norm=norm)
    checks.one_of(layers.FORMS, form=form)
    layers.initializer(init)
    return layers.as_model(ResNet18(num_classes, width, norm, groups, resize, init, form))
