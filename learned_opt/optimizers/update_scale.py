"""What the updates of an optimizer scale with already, which decides how muP corrects them.

Entries: root mean square of the update of a tensor, up to the step size.
"""

ENTRY = "entry"  # about 1: Adam, signs, and learned functions of normalised inputs
PARAMETER = "parameter"  # that of the parameter: VeLO, Celo, Adafactor, LAMB
ORTHOGONAL_ENTRY = "orthogonal_entry"  # about 1, singular values alike: Muon
ORTHOGONAL_PARAMETER = "orthogonal_parameter"  # that of the parameter, singular values alike
SPECTRAL = "spectral"  # singular values about 1: Shampoo
GRADIENT = "gradient"  # that of the gradient: SGD and momentum

SCALES = (ENTRY, PARAMETER, ORTHOGONAL_ENTRY, ORTHOGONAL_PARAMETER, SPECTRAL, GRADIENT)
