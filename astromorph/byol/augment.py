"""Views: what two pictures of one object may differ in.

All images of a batch are resampled at once, each with its own random draw, on
the device where they are.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from astromorph.settings.sections import AugmentationSettings

MAX_BOX = 1 / 3  # side of what is erased over that of the image
SLACK = 1e-3  # beyond 0 and 1, by rounding and resampling
MIN_SIDE = 32  # pixels from which on some of them tell the median


class SkyAugmentation:
    """Flip, rotation, scale and shift in one resampling; brightness, blur, noise.

    Beyond the image's edge its mirror image is seen, never a filled corner.

    Parameters
    ----------
    settings : AugmentationSettings, optional
        How strong each change is; by default as in the workflow.
    generator : torch.Generator, optional
        All randomness, on the CPU; by default torch's own. Only the pixels' noise
        is drawn where the images are.
    stacksize : int
        How often a single channel stands in the images: a view is made of one
        and repeated, so that the copies stay copies. At least 1, the default.

    Examples
    --------
    >>> import torch
    >>> augment = SkyAugmentation(generator=torch.Generator().manual_seed(1))
    >>> augment(torch.rand(4, 1, 32, 32)).shape
    torch.Size([4, 1, 32, 32])

    Weaker views, so that angular size and flux count:

    >>> from astromorph.settings.sections import AugmentationSettings
    >>> strengths = AugmentationSettings(scale=(0.9, 1.1), contrast=0.1, gamma=0.1)
    >>> augment = SkyAugmentation(strengths)
    """

    def __init__(
        self,
        settings: "AugmentationSettings | None" = None,
        generator: torch.Generator | None = None,
        stacksize: int = 1,
    ) -> None:
        if settings is None:
            from astromorph.settings.sections import AugmentationSettings

            settings = AugmentationSettings()
        self.settings = settings
        self.generator = generator
        self.stacksize = stacksize
        self._looked = False

    def __call__(self, images: Tensor) -> Tensor:
        """One view of each image.

        Parameters
        ----------
        images : Tensor, shape (N, C, H, W), float32
            From 0 to 1; left as they are.

        Returns
        -------
        Tensor, shape (N, C, H, W), float32
            From 0 to 1.

        Raises
        ------
        ValueError
            The images have another shape or type, there are none, or their pixels
            go beyond 0 and 1.
        """
        self._check(images)
        if self.stacksize > 1:
            return self._view(images[:, :1]).repeat(1, self.stacksize, 1, 1)
        return self._view(images)

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.numel() == 0:
            raise ValueError(
                f"images: found the shape {tuple(images.shape)}; allowed is "
                "(N, C, H, W), of at least one image; of a single one (1, C, H, W)"
            )
        if not images.is_floating_point():
            raise ValueError(
                f"images: found {images.dtype}; allowed are floats from 0 to 1"
            )
        if self._looked and images.device.type != "cpu":
            return  # a GPU would have to be waited for
        self._looked = True
        low, high = (float(edge) for edge in images.aminmax())
        if low < -SLACK or high > 1 + SLACK:
            raise ValueError(
                f"images: found pixels from {low:g} to {high:g}; allowed is 0 to 1, "
                "where MinMaxNorm()(images) brings them"
            )

    def _view(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        matrices = self._matrices(len(images), height / width).to(images)
        views = functional.grid_sample(
            images,
            _grid(matrices, height, width),
            mode="bilinear",
            padding_mode="reflection",
            align_corners=False,
        ).clamp_(0, 1)
        views = views ** self._exponents(len(images)).to(images)
        views = self._brightness(gaussian_blur(views, self._blurs(len(images))))
        views = self._erased(views)
        if self.settings.noise:
            views = views + self._missing_noise(views) * self._normal(views)
        return views.clamp_(0, 1)

    def _matrices(self, number: int, aspect: float) -> Tensor:
        """Affine maps `(N, 2, 3)` from the view's coordinates to the image's.

        Coordinates run from -1 to 1 along both axes, so that on an image that
        is not square a rotation needs the aspect, height over width.
        """
        s = self.settings
        smallest, largest = (math.log(scale) for scale in s.scale)
        angle = 2 * math.pi * self._uniform(number) * s.rotation
        scale = torch.exp(-(smallest + (largest - smallest) * self._uniform(number)))
        mirror = 1 - 2 * (self._uniform(number) < 0.5 * s.flip).float()
        shift = s.shift * (2 * self._uniform(number, 2) - 1) * 2
        cos, sin = scale * angle.cos(), scale * angle.sin()
        rows = (
            torch.stack([mirror * cos, -mirror * sin * aspect, shift[:, 0]], dim=1),
            torch.stack([sin / aspect, cos, shift[:, 1]], dim=1),
        )
        return torch.stack(rows, dim=1)

    def _exponents(self, number: int) -> Tensor:
        """Log-uniform exponents `(N, 1, 1, 1)` around 1."""
        spread = self.settings.gamma
        return torch.exp(spread * (2 * self._uniform(number, 1, 1, 1) - 1))

    def _brightness(self, views: Tensor) -> Tensor:
        """Fainter or brighter, darker or lighter, each by its own draw."""
        s, number = self.settings, len(views)
        spread = 2 * self._uniform(number, 1, 1, 1).to(views) - 1
        factor = torch.exp(s.contrast * spread)
        if views.shape[1] > 1:
            colours = 2 * self._uniform(number, views.shape[1], 1, 1).to(views) - 1
            factor = factor * torch.exp(s.channel_gain * colours)
        offset = s.brightness * (2 * self._uniform(number, 1, 1, 1).to(views) - 1)
        level = _level(views)
        return level + factor * (views - level) + offset

    def _missing_noise(self, views: Tensor) -> Tensor:
        """What takes the noise of a view to a level that is drawn, `(N, C, 1, 1)`.

        Variances add: the square root of their difference, 0 where the view has
        more noise already. Its own is 1.48 times the median absolute deviation.
        """
        wanted = self.settings.noise * self._uniform(len(views), 1, 1, 1).to(views)
        own = 1.4826 * _level((views - _level(views)).abs())
        return (wanted.square() - own.square()).clamp(min=0).sqrt()

    def _erased(self, views: Tensor) -> Tensor:
        """Some of the views with a box of background."""
        share, number = self.settings.erasing, len(views)
        if not share:
            return views
        drawn = self._uniform(number, 5).to(views)
        inside = drawn[:, 4, None, None] < share
        for k, axis in enumerate((1, 2)):
            length = views.shape[axis + 1]
            wide = (drawn[:, k] * MAX_BOX * length)[:, None]
            first = (drawn[:, k + 2] * length)[:, None] - wide / 2
            place = torch.arange(length, device=views.device)[None]
            within = (place >= first) & (place <= first + wide)
            inside = inside & within.unsqueeze(3 - axis)
        return torch.where(inside[:, None], _level(views), views)

    def _blurs(self, number: int) -> Tensor:
        """Widths of blurring beams `(N,)`, standard deviations in pixels."""
        return self.settings.blur * self._uniform(number)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _normal(self, like: Tensor) -> Tensor:
        """Noise for each pixel, drawn where the images are."""
        generator = self.generator
        if like.device.type != "cpu":
            seed = torch.randint(2**62, (), generator=self.generator)
            generator = torch.Generator(like.device).manual_seed(int(seed))
        return torch.randn(like.shape, generator=generator, device=like.device)


def _grid(matrices: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of a view comes from, `(N, H, W, 2)`.

    What `torch.nn.functional.affine_grid` gives, by sums in place of products of
    small matrices, which takes a third of the time.
    """
    x = (2 * torch.arange(width, device=matrices.device) + 1) / width - 1
    y = (2 * torch.arange(height, device=matrices.device) + 1) / height - 1
    places = matrices.new_empty(len(matrices), height, width, 2)
    for k in range(2):
        across, down, offset = matrices[:, k, :, None, None].unbind(dim=1)
        torch.add(across * x, down * y[:, None] + offset, out=places[..., k])
    return places


def _level(views: Tensor) -> Tensor:
    """The median `(N, C, 1, 1)` of every fourth pixel, which is close enough."""
    some = views[:, :, ::2, ::2] if min(views.shape[2:]) >= MIN_SIDE else views
    return some.flatten(2).median(dim=2).values[..., None, None]


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Convolve each image with a Gaussian beam of its own.

    Parameters
    ----------
    images : Tensor, shape (N, C, H, W), float32
        Left as they are.
    sigma : Tensor, shape (N,)
        Standard deviations in pixels, at least 0, which leaves an image; three
        times as much must be less than H and W.

    Returns
    -------
    Tensor, shape (N, C, H, W), float32
        Beyond the edge the image is mirrored, so that the sum hardly changes.

    Examples
    --------
    >>> point = torch.zeros(1, 1, 9, 9)
    >>> point[0, 0, 4, 4] = 1.0
    >>> found = gaussian_blur(point, torch.tensor([1.0]))
    >>> round(float(found.max()), 3), round(float(found.sum()), 3)
    (0.159, 1.0)
    """
    if float(sigma.max()) <= 0:
        return images
    reach = max(1, math.ceil(3 * float(sigma.max())))
    taps = torch.arange(-reach, reach + 1.0)
    widths = sigma.clamp(min=1e-3)[:, None]
    lines = torch.exp(-0.5 * (taps / widths) ** 2)
    lines = (lines / lines.sum(dim=1, keepdim=True)).to(images)
    number, channels, height, width = images.shape
    kernels = lines.repeat_interleave(channels, dim=0)
    flat = images.reshape(1, number * channels, height, width)
    flat = functional.pad(flat, (reach, reach, reach, reach), mode="reflect")
    groups = number * channels
    flat = functional.conv2d(flat, kernels[:, None, :, None], groups=groups)
    flat = functional.conv2d(flat, kernels[:, None, None, :], groups=groups)
    return flat.view_as(images)
