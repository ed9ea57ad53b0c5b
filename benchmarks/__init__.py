"""What a send costs, against a bare call and against what else one would use. ``python -m benchmarks`` runs it all.

Loopback only. Absolute times mean little on a machine that does other things too, so every figure that counts is a
ratio of two that were taken side by side.
"""
