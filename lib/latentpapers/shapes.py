"""Tensor types for signatures. A letter means one thing everywhere: N batch, C channels, H rows,
W columns, Z latent size, F features, K classes.

Image tensors are float32 in [-1, 1] unless a docstring says otherwise; stored images are uint8.
"""

from jaxtyping import Float, Int, UInt8
from torch import Tensor

Images = Float[Tensor, "N C H W"]
Bytes = UInt8[Tensor, "N C H W"]
Codes = Float[Tensor, "N Z"]
Features = Float[Tensor, "N F"]
Logits = Float[Tensor, "N K"]
Labels = Int[Tensor, "N"]
PerImage = Float[Tensor, "N"]
Scalar = Float[Tensor, ""]
