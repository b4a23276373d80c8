"""The law: which runs are the same run, and what a run really is. Exact, without JAX.

Multiply the weights of layer l by c_l and the inputs by 1 / ∏c_l. The network computes the same
function, the gradient of layer l becomes g / c_l, and so each of the layer's settings has to move
by a known power of c_l (rules.py) for training to go on identically (transport.py). What no such
move alters is what the run is: its invariants (invariants.py), read as the one run with unscaled
inputs and a common learning rate (canonical.py). From these follow how two runs differ
(difference.py) and what would turn one into the other (repair.py).

Sources: the symmetry, Neyshabur et al. 2015 (arXiv 1506.02617); for training, Yang & Hu 2021
(2011.14522) and Yang & Littwin 2023 (2308.01814, proposition 2.2.3). Here c is W' / W.

All arithmetic is exact (surd.py, monomials.py) until a setting is rounded to a float, once.
"""
