"""Python reads this first where this folder is on its path: the process sees a pretended GPU."""

import pretend_gpu

pretend_gpu.switch_on()
